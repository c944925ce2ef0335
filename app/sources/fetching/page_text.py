"""One page as text, by its own word, or none where it has not changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import overload

from app.core.errors import Rejected
from app.documents.accept.accept import Format
from app.sources.fetching.download import Before, Download, Validators, download, split_url

__all__ = ["NotModified", "PageText", "Validators", "fetch", "split_url"]

# What is longer is no use to keep.
MAX_VALIDATOR_CHARACTERS = 255
_ACCEPT = "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.1"
_FORMATS: dict[str, Format] = {
    "text/html": "html", "application/xhtml+xml": "html", "text/markdown": "markdown", "text/x-markdown": "markdown",
    "text/plain": "text",
}  # fmt: skip
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class PageText:
    """`url` is where the redirects ended; `etag` and `last_modified` make the Validators of the next time.

    `robots_tag` is what the server says to robots of this page, `rendered` whether its scripts have run.
    """

    url: str
    status_code: int
    format: Format
    text: str
    etag: str | None = None
    last_modified: str | None = None
    robots_tag: str | None = None
    rendered: bool = False


@dataclass(frozen=True, slots=True)
class NotModified:
    """The page at `url` is what it was when it was seen."""

    url: str


@overload
async def fetch(url: str, *, before: Before | None = None) -> PageText: ...
@overload
async def fetch(url: str, *, seen: Validators | None, before: Before | None = None) -> PageText | NotModified: ...
async def fetch(url: str, *, seen: Validators | None = None, before: Before | None = None) -> PageText | NotModified:
    """The page as text. Raises Rejected for a final no, Unavailable where a later try may succeed."""
    found = await download(url, accept=_ACCEPT, seen=seen, before=before)
    if found.status_code == 304 and seen is not None and seen.headers():
        return NotModified(found.url)
    found.check_status()
    format_ = _format(found)
    return PageText(
        found.url,
        found.status_code,
        format_,
        _decoded(found, format_),
        etag=_validator(found, "etag"),
        last_modified=_validator(found, "last-modified"),
        robots_tag=found.headers.get("x-robots-tag"),
    )


def _validator(found: Download, name: str) -> str | None:
    said: str = found.headers.get(name, "")
    return said if said and len(said) <= MAX_VALIDATOR_CHARACTERS and said.isascii() and said.isprintable() else None


def _format(found: Download) -> Format:
    media_type = found.media_type
    if media_type is None:
        return "html"
    if media_type not in _FORMATS:
        raise Rejected(f"{found.url} is {media_type or 'of no type'}, which cannot be read", code="media_type")
    return _FORMATS[media_type]


def _decoded(found: Download, format_: Format) -> str:
    """By byte order mark, else header, else the page's own word, else UTF-8, else Windows-1252."""
    body = found.body
    marked = next((codec for mark, codec in _BYTE_ORDER_MARKS.items() if body.startswith(mark)), None)
    said = _META_CHARSET.search(body[:4096]) if format_ == "html" else None
    for codec in (marked, found.charset, said[1].decode("ascii") if said else None, "utf-8"):
        try:
            if codec is not None:
                return body.decode(codec)
        except (LookupError, ValueError):
            continue
    return body.decode("cp1252", "replace")
