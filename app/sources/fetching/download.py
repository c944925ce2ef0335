"""Download one HTTP response: from checked addresses, through a few redirects, within limits of time and size."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urljoin, urlsplit

from app.core import clock
from app.core.errors import InvalidInput, Rejected, TooManyRedirects, Unavailable
from app.core.http import AsyncClient, Cookies, HTTPError, InvalidURL, Response, TimeoutException, is_temporary
from app.core.settings import get_settings
from app.sources.fetching import connections
from app.sources.fetching.inflate import ACCEPTED, IncompleteBody, Inflater
from app.sources.fetching.refresh import refresh_target

MAX_REDIRECTS = 20
MAX_WAIT_S = 3600
PORTS = {"http": 80, "https": 443}
_RANGE = re.compile(r"\s*bytes 0-(\d{1,15})/(\d{1,15})\s*", re.IGNORECASE)
_REDIRECTS = (301, 302, 303, 307, 308)
# Called with each URL before its request; its duration does not count towards the timeout.
Before = Callable[[str], Awaitable[None]]


class ServerBusy(Unavailable):
    """The server answered with a status that asks for a later try."""


@dataclass(frozen=True, slots=True)
class Validators:
    """Validators of stored content, as its server sent them."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        headers = {"if-none-match": self.etag, "if-modified-since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


@dataclass(frozen=True, slots=True)
class Download:
    """A response of any status except a redirect; `url` is the URL after redirects."""

    url: str
    status_code: int
    headers: Mapping[str, str]
    body: bytes
    charset: str | None = None

    @property
    def media_type(self) -> str | None:
        """Media type of the response, or None without a content-type header."""
        value = self.headers.get("content-type")
        return None if value is None else re.split(r"[;,]", value, maxsplit=1)[0].strip().lower()

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    def check_status(self) -> None:
        """Raise ServerBusy if a later try may succeed, Rejected for any other status but 2xx."""
        status = self.status_code
        if is_temporary(status):
            raise ServerBusy(f"{self.url} answered {status}", retry_after_s=_wait_s(self.headers.get("retry-after")))
        if not self.is_success:
            raise Rejected(f"{self.url} answered {status}", code="http_status")


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL that can be fetched. Raises InvalidInput for any other."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"url: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise InvalidInput("url: only http:// and https:// URLs can be fetched", code="url_scheme")
    return parts


async def download(
    url: str,
    *,
    accept: str = "*/*",
    max_bytes: int | None = None,
    truncate: bool = False,
    validators: Validators | None = None,
    before: Before | None = None,
    cookies: Cookies | None = None,
) -> Download:
    """Return the response with its decompressed body, of a 2xx status only; `max_bytes` defaults to the setting.

    Redirects are followed, also those by a Refresh header. Their cookies go back to their servers within this call, or
    within all calls that share `cookies`. A larger body raises Rejected, or is cut with `truncate`. Raises Unavailable
    if the server does not answer in time or the body is not whole.
    """
    settings = get_settings()
    headers = {"accept": accept, "accept-encoding": ACCEPTED, **(validators.headers() if validators else {})}
    jar = Cookies() if cookies is None else cookies
    request = _Request(headers, max_bytes or settings.fetch_max_bytes, truncate, jar)
    refreshed: set[str] = set()
    left_s = settings.fetch_timeout_s
    try:
        async with connections.client() as client:
            for _ in range(MAX_REDIRECTS + 1):
                split_url(url)
                if before is not None:
                    await before(url)
                started = clock.monotonic()
                async with asyncio.timeout(left_s):
                    response = await request.send(client, url)
                left_s -= clock.monotonic() - started
                if isinstance(response, str):
                    url = urljoin(url, response)
                    continue
                target = refresh_target(response.headers.get("refresh"), url) if response.is_success else None
                if target is None or target in refreshed:  # pages that refresh to each other are pages
                    return response
                refreshed.add(url)
                url = target
    except TimeoutError as error:
        raise Unavailable(f"{url} took longer than {settings.fetch_timeout_s:g} s") from error
    except InvalidURL as error:
        raise InvalidInput(f"url: {error}") from error
    except HTTPError as error:
        raise Unavailable(f"{url} cannot be fetched: {str(error) or type(error).__name__}") from error
    raise TooManyRedirects(f"more than {MAX_REDIRECTS} redirects, the last to {url}")


@dataclass(frozen=True, slots=True)
class _Request:
    headers: dict[str, str]
    max_bytes: int
    truncate: bool
    cookies: Cookies

    async def send(self, client: AsyncClient, url: str) -> Download | str:
        """Return the response, or the location of a redirect."""
        parts = urlsplit(url)
        # User name and password in a URL are never sent.
        target = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        request = client.build_request("GET", target, headers=self.headers)
        self.cookies.set_cookie_header(request)
        response = await client.send(request, stream=True, follow_redirects=False)
        self.cookies.extract_cookies(response)
        try:
            location = response.headers.get("location")
            if response.status_code in _REDIRECTS and location:
                return str(location)
            # Other bodies are not read: an error page never becomes the text of a page.
            body = await self._body(url, response) if response.is_success else b""
            return Download(url, response.status_code, response.headers, body, response.charset_encoding)
        finally:
            await response.aclose()

    async def _body(self, url: str, response: Response) -> bytes:
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_bytes and not self.truncate:
            raise self._too_large(url)
        inflater = Inflater(response.headers.get("content-encoding", ""))
        parts: list[bytes] = []
        try:
            await self._read(url, response, inflater, parts)
        except TimeoutException:
            raise
        except HTTPError as error:
            incomplete = IncompleteBody(f"{url} broke off: {str(error) or type(error).__name__}")
            incomplete.partial = b"".join(parts)
            raise incomplete from error
        except IncompleteBody as error:
            error.partial = b"".join(parts)
            raise
        return b"".join(parts)

    async def _read(self, url: str, response: Response, inflater: Inflater, parts: list[bytes]) -> None:
        left = self.max_bytes
        async for packed in response.aiter_raw():
            part = inflater.feed(packed, left)
            parts.append(part[:left])
            left -= len(part)
            if left < 0:
                if self.truncate:
                    return
                raise self._too_large(url)
        _check_whole(url, response, inflater)

    def _too_large(self, url: str) -> Rejected:
        return Rejected(f"{url} is larger than {self.max_bytes:,} bytes", code="too_large")


def _check_whole(url: str, response: Response, inflater: Inflater) -> None:
    """Raise IncompleteBody if the body ended early, or the server sent a part of it only."""
    inflater.finish()
    if response.status_code != 206:
        return
    match = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[1]) + 1 != int(match[2]):
        raise IncompleteBody(f"{url} answered with a part of the page")


def _wait_s(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date; None for any other value."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return min(float(retry_after), MAX_WAIT_S)
    try:
        due = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if due.tzinfo is None:
        return None
    return min(max((due - clock.now()).total_seconds(), 0.0), MAX_WAIT_S)
