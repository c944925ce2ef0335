"""Fetch one page as text, or learn that it has not changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import overload

from app.core.errors import Rejected
from app.documents.accept.accept import Format
from app.sources.fetching.download import Before, Download, Validators, download, split_url

__all__ = ["NotModified", "PageText", "Validators", "fetch", "split_url"]

# Longer validators are not stored.
MAX_VALIDATOR_CHARACTERS = 255
_ACCEPT = "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.1"
_FORMATS: dict[str, Format] = {
    "text/html": "html", "application/xhtml+xml": "html", "text/markdown": "markdown", "text/x-markdown": "markdown",
    "text/plain": "text",
}  # fmt: skip
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class UnreadableType(Rejected):
    """The page has a media type that cannot be read."""

    code = "media_type"


@dataclass(frozen=True, slots=True)
class PageText:
    """Text of a page. `url` is the URL after redirects; `etag` and `last_modified` are its validators.

    `robots_tag` is the X-Robots-Tag header. `rendered` is True if the page's scripts have run.
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
    """The page at `url` still has the content of the validators."""

    url: str


@overload
async def fetch(url: str, *, before: Before | None = None) -> PageText: ...
@overload
async def fetch(url: str, *, validators: Validators | None, before: Before | None = None) -> PageText | NotModified: ...
async def fetch(
    url: str, *, validators: Validators | None = None, before: Before | None = None
) -> PageText | NotModified:
    """Fetch the page. Raises Rejected if it cannot be read, Unavailable if a later try may succeed."""
    response = await download(url, accept=_ACCEPT, validators=validators, before=before)
    if response.status_code == 304 and validators is not None and validators.headers():
        return NotModified(response.url)
    response.check_status()
    format_ = _format(response)
    return PageText(
        response.url,
        response.status_code,
        format_,
        _decode(response, format_),
        etag=_validator(response, "etag"),
        last_modified=_validator(response, "last-modified"),
        robots_tag=response.headers.get("x-robots-tag"),
    )


def _validator(response: Download, name: str) -> str | None:
    value: str = response.headers.get(name, "")
    is_valid = 0 < len(value) <= MAX_VALIDATOR_CHARACTERS and value.isascii() and value.isprintable()
    return value if is_valid else None


def _format(response: Download) -> Format:
    media_type = response.media_type
    if media_type is None:
        return "html"
    if media_type not in _FORMATS:
        raise UnreadableType(f"{response.url} has the media type {media_type or '(none)'}, which cannot be read")
    return _FORMATS[media_type]


def _decode(response: Download, format_: Format) -> str:
    """Decode the body by byte order mark, charset of the header, charset of the HTML, UTF-8, or Windows-1252."""
    body = response.body
    marked = next((codec for mark, codec in _BYTE_ORDER_MARKS.items() if body.startswith(mark)), None)
    match = _META_CHARSET.search(body[:4096]) if format_ == "html" else None
    for codec in (marked, response.charset, match[1].decode("ascii") if match else None, "utf-8"):
        try:
            if codec is not None:
                return body.decode(codec)
        except (LookupError, ValueError):
            continue
    return body.decode("cp1252", "replace")
