"""One page over HTTP: to a checked address, through a few redirects, no longer and no larger than the settings say."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from app.core.errors import InvalidInput, Rejected, Unavailable
from app.core.guard import resolve
from app.core.http import AsyncClient, HTTPError, InvalidURL, Response, async_client, pinned
from app.core.settings import get_settings
from app.documents.accept import Format

MOST_REDIRECTS = 5
LONGEST_WAIT_S = 3600
_PORTS = {"http": 80, "https": 443}
_FORMATS: dict[str, Format] = {
    "text/html": "html", "application/xhtml+xml": "html", "text/markdown": "markdown", "text/x-markdown": "markdown",
    "text/plain": "text",
}  # fmt: skip
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class Page:
    """`url` is where the redirects ended."""

    url: str
    status_code: int
    format: Format
    text: str


def target(url: str) -> SplitResult:
    """The parts of a URL that may be fetched. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"url: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidInput("url: only http:// and https:// addresses can be fetched", code="url_scheme")
    return parts


async def fetch(url: str) -> Page:
    """The page as text. Raises Rejected for a final no, Unavailable where a later try may succeed."""
    settings = get_settings()
    try:
        async with asyncio.timeout(settings.fetch_timeout_s), async_client(settings.fetch_timeout_s) as client:
            for _ in range(MOST_REDIRECTS + 1):
                answer = await _get(client, url)
                if isinstance(answer, Page):
                    return answer
                url = urljoin(url, answer)
    except TimeoutError as error:
        raise Unavailable(f"{url} took longer than {settings.fetch_timeout_s:g} s") from error
    except (HTTPError, InvalidURL) as error:
        raise Unavailable(f"{url} cannot be fetched: {str(error) or type(error).__name__}") from error
    raise Rejected(f"more than {MOST_REDIRECTS} redirects, the last to {url}", code="too_many_redirects")


async def _get(client: AsyncClient, url: str) -> Page | str:
    """The page, or where it redirects to."""
    parts = target(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    address = await resolve(host, port)
    there, headers, extensions = pinned(url, address)
    headers["accept"] = "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,*/*;q=0.1"
    request = client.build_request("GET", there, headers=headers, extensions=extensions)
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        location = response.headers.get("location")
        if response.is_redirect and location:
            return str(location)
        _check_status(url, response)
        found = _format(url, response)
        return Page(url, response.status_code, found, _decoded(await _body(url, response), response, found))
    finally:
        await response.aclose()


def _check_status(url: str, response: Response) -> None:
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        after = response.headers.get("retry-after", "")
        wait_s = min(float(after), LONGEST_WAIT_S) if after.isdecimal() else None
        raise Unavailable(f"{url} answered {status}", retry_after_s=wait_s)
    if not 200 <= status < 300:
        raise Rejected(f"{url} answered {status}", code="http_status")


def _format(url: str, response: Response) -> Format:
    media_type = response.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
    if media_type not in _FORMATS:
        raise Rejected(f"{url} is {media_type or 'of no type'}, which cannot be read", code="media_type")
    return _FORMATS[media_type]


async def _body(url: str, response: Response) -> bytes:
    largest, parts, size = get_settings().fetch_max_bytes, [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > largest:
            raise Rejected(f"{url} is larger than {largest:,} bytes", code="too_large")
        parts.append(part)
    return b"".join(parts)


def _decoded(body: bytes, response: Response, format_: Format) -> str:
    """By byte order mark, else header, else the page's own word, else UTF-8, else Windows-1252."""
    marked = next((codec for mark, codec in _BYTE_ORDER_MARKS.items() if body.startswith(mark)), None)
    said = _META_CHARSET.search(body[:4096]) if format_ == "html" else None
    for codec in (marked, response.charset_encoding, said[1].decode("ascii") if said else None, "utf-8"):
        try:
            if codec is not None:
                return body.decode(codec)
        except (LookupError, ValueError):
            continue
    return body.decode("cp1252", "replace")
