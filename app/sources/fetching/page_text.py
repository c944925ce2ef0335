"""Fetch one page as text, or learn that it has not changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

from app.core import charsets
from app.core.errors import Rejected
from app.documents.accept.accept import Format, Original
from app.sources.fetching.download import Before, Download, Validators, download, split_url
from app.sources.fetching.file_page import store_file

__all__ = ["NotModified", "PageText", "Validators", "fetch", "split_url"]

# Longer validators are not stored.
MAX_VALIDATOR_CHARACTERS = 255
_ACCEPT = "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.1"
_FORMATS: dict[str, Format] = {
    "text/html": "html", "application/xhtml+xml": "html", "text/markdown": "markdown", "text/x-markdown": "markdown",
    "text/plain": "text",
}  # fmt: skip


class UnreadableType(Rejected):
    """The page has a media type that cannot be read."""

    code = "media_type"


@dataclass(frozen=True, slots=True)
class PageText:
    """Text of a page. `url` is the URL after redirects; `etag` and `last_modified` are its validators.

    A page that is a file has `original` and no text.
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
    original: Original | None = None


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
    original = await store_file(response)
    format_ = "file" if original is not None else _format(response)
    text = "" if original is not None else await charsets.decode_off_loop(response.body, _label(response, format_))
    return PageText(
        response.url,
        response.status_code,
        format_,
        text,
        etag=_validator(response, "etag"),
        last_modified=_validator(response, "last-modified"),
        robots_tag=response.headers.get("x-robots-tag"),
        original=original,
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


def _label(response: Download, format_: Format) -> str | None:
    """Return the label of the body's encoding: that of the header, or else one that the HTML declares."""
    if charsets.encoding_of(response.charset) is not None or format_ != "html":
        return response.charset
    return charsets.declared_label(response.body)
