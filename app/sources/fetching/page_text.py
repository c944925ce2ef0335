"""Fetch one page as text, or learn that it has not changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

from app.core import charsets
from app.core.errors import Rejected, Unavailable
from app.core.http import Cookies
from app.documents.accept.accept import Format
from app.sources.fetching.declared_charset import declared_charset
from app.sources.fetching.download import Before, Download, Validators, download, split_url

__all__ = ["NotModified", "PageText", "Validators", "fetch", "split_url"]

# Longer validators are not stored.
MAX_VALIDATOR_CHARACTERS = 255
_ACCEPT = "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.1"
_FORMATS: dict[str, Format] = {
    "text/html": "html", "application/xhtml+xml": "html", "text/markdown": "markdown", "text/x-markdown": "markdown",
    "text/plain": "text",
}  # fmt: skip
# Types that name no type: some servers send them, or an empty one.
_NO_TYPES = ("", "*/*", "unknown/unknown")
# A text with more invalid bytes is in another encoding: one in so many characters, and in UTF-8 of those beyond ASCII.
MIN_CHARACTERS_PER_FAULT = 100
MIN_LETTERS_PER_FAULT = 10


class UnreadableType(Rejected):
    """The page has a media type that cannot be read."""

    code = "media_type"


class EmptyPage(Unavailable):
    """The server answered with an empty page; a later answer may have text."""

    code = "no_content"


@dataclass(frozen=True, slots=True)
class PageText:
    """Text of a page. `url` is the URL after redirects; `etag` and `last_modified` are its validators.

    `robots_tag` and `link` are the headers X-Robots-Tag and Link. `rendered` is True if the page's scripts have run.
    """

    url: str
    status_code: int
    format: Format
    text: str
    etag: str | None = None
    last_modified: str | None = None
    robots_tag: str | None = None
    link: str | None = None
    rendered: bool = False


@dataclass(frozen=True, slots=True)
class NotModified:
    """The page at `url` still has the content of the validators."""

    url: str


@overload
async def fetch(url: str, *, before: Before | None = None, cookies: Cookies | None = None) -> PageText: ...
@overload
async def fetch(
    url: str, *, validators: Validators | None, before: Before | None = None, cookies: Cookies | None = None
) -> PageText | NotModified: ...
async def fetch(
    url: str,
    *,
    validators: Validators | None = None,
    before: Before | None = None,
    cookies: Cookies | None = None,
) -> PageText | NotModified:
    """Fetch the page. Raises Rejected if it cannot be read, Unavailable if a later try may succeed."""
    response = await download(url, accept=_ACCEPT, validators=validators, before=before, cookies=cookies)
    if response.status_code == 304 and validators is not None and validators.headers():
        return NotModified(response.url)
    response.check_status()
    format_ = _format(response)
    text = await charsets.run_off_loop(len(response.body), lambda: _decode(response, format_))
    if not text.strip():
        raise EmptyPage(f"{response.url} has no text")
    return PageText(
        response.url,
        response.status_code,
        format_,
        text,
        etag=_validator(response, "etag"),
        last_modified=_validator(response, "last-modified"),
        robots_tag=response.headers.get("x-robots-tag"),
        link=response.headers.get("link"),
    )


def _validator(response: Download, name: str) -> str | None:
    value: str = response.headers.get(name, "")
    is_valid = 0 < len(value) <= MAX_VALIDATOR_CHARACTERS and value.isascii() and value.isprintable()
    return value if is_valid else None


def _format(response: Download) -> Format:
    media_type = response.media_type
    if media_type is None or media_type in _NO_TYPES or "/" not in media_type:
        return "html"
    if media_type not in _FORMATS:
        raise UnreadableType(f"{response.url} has the media type {media_type}, which cannot be read")
    return _FORMATS[media_type]


def _decode(response: Download, format_: Format) -> str:
    """Decode the body by byte order mark, charset of the header, charset of the HTML, UTF-8, or Windows-1252."""
    body = response.body
    labels = [response.charset, declared_charset(body) if format_ == "html" else None, "utf-8"]
    for label in labels:
        codec = charsets.encoding_of(label)
        if codec is not None:
            text = charsets.decode(body, label)
            if _is_likely(text, codec):
                return text
    return charsets.decode(body, charsets.DEFAULT_CODEC)


def _is_likely(text: str, codec: str) -> bool:
    """Return True unless the text has too many invalid bytes for the encoding."""
    faults = text.count("\ufffd")
    if not faults:
        return True
    if codec == "utf-8":
        letters = len(text) - len(text.encode("ascii", "ignore"))
        return faults * MIN_LETTERS_PER_FAULT < letters
    return faults * MIN_CHARACTERS_PER_FAULT < len(text)
