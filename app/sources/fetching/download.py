"""One answer over HTTP: from a checked address, through a few redirects, no later and no larger than settings say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urljoin, urlsplit

from app.core import clock
from app.core.errors import InvalidInput, Rejected, TooManyRedirects, Unavailable
from app.core.http import AsyncClient, HTTPError, InvalidURL, Response
from app.core.settings import get_settings
from app.sources.fetching import connections
from app.sources.fetching.inflate import ACCEPTED, Inflater

MAX_REDIRECTS = 5
MAX_WAIT_S = 3600
PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
# Called with each address before it is asked; what it takes does not count as the page's time.
Before = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of the content that is here already, in its own words."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        said = {"if-none-match": self.etag, "if-modified-since": self.last_modified}
        return {name: value for name, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class Download:
    """An answer that is no redirect, whatever its status; `url` is where the redirects ended."""

    url: str
    status_code: int
    headers: Mapping[str, str]
    body: bytes
    charset: str | None = None

    @property
    def media_type(self) -> str | None:
        """None where the server does not say."""
        said = self.headers.get("content-type")
        return None if said is None else said.partition(";")[0].strip().lower()

    def check_status(self) -> None:
        """Raises Rejected for a final no, Unavailable where a later try may succeed."""
        status = self.status_code
        if status in (408, 425, 429) or status >= 500:
            raise Unavailable(f"{self.url} answered {status}", retry_after_s=_wait_s(self.headers.get("retry-after")))
        if not 200 <= status < 300:
            raise Rejected(f"{self.url} answered {status}", code="http_status")


def split_url(url: str) -> SplitResult:
    """The parts of a URL that may be fetched. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput(f"url: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise InvalidInput("url: only http:// and https:// addresses can be fetched", code="url_scheme")
    return parts


async def download(
    url: str,
    *,
    accept: str = "*/*",
    max_bytes: int | None = None,
    cut: bool = False,
    seen: Validators | None = None,
    before: Before | None = None,
) -> Download:
    """The answer with its body, unpacked; `max_bytes` is by default the setting's.

    A larger body is Rejected, or with `cut` ends there. Raises Unavailable where nobody answers, or not in time.
    """
    settings = get_settings()
    headers = {"accept": accept, "accept-encoding": ACCEPTED, **(seen.headers() if seen else {})}
    ask = _Ask(headers, max_bytes or settings.fetch_max_bytes, cut)
    left_s = settings.fetch_timeout_s
    try:
        async with connections.client() as client:
            for _ in range(MAX_REDIRECTS + 1):
                split_url(url)
                if before is not None:
                    await before(url)
                started = clock.monotonic()
                async with asyncio.timeout(left_s):
                    answer = await ask.of(client, url)
                if isinstance(answer, Download):
                    return answer
                left_s -= clock.monotonic() - started
                url = urljoin(url, answer)
    except TimeoutError as error:
        raise Unavailable(f"{url} took longer than {settings.fetch_timeout_s:g} s") from error
    except InvalidURL as error:
        raise InvalidInput(f"url: {error}") from error
    except HTTPError as error:
        raise Unavailable(f"{url} cannot be fetched: {str(error) or type(error).__name__}") from error
    raise TooManyRedirects(f"more than {MAX_REDIRECTS} redirects, the last to {url}")


@dataclass(frozen=True, slots=True)
class _Ask:
    headers: dict[str, str]
    max_bytes: int
    cut: bool

    async def of(self, client: AsyncClient, url: str) -> Download | str:
        """The answer, or where it redirects to."""
        parts = urlsplit(url)
        # Neither names nor passwords of a URL are sent to anybody.
        there = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        request = client.build_request("GET", there, headers=self.headers)
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            location = response.headers.get("location")
            if response.status_code in _REDIRECTS and location:
                return str(location)
            body = b"" if response.status_code == 304 else await self._body(url, response)
            return Download(url, response.status_code, response.headers, body, response.charset_encoding)
        finally:
            await response.aclose()

    async def _body(self, url: str, response: Response) -> bytes:
        said = response.headers.get("content-length", "")
        if said.isdecimal() and int(said) > self.max_bytes and not self.cut:
            raise self._too_large(url)
        inflater = Inflater(response.headers.get("content-encoding", ""))
        parts, left = [], self.max_bytes
        async for packed in response.aiter_raw():
            part = inflater.feed(packed, left)
            parts.append(part[:left])
            left -= len(part)
            if left < 0:
                if self.cut:
                    break
                raise self._too_large(url)
        return b"".join(parts)

    def _too_large(self, url: str) -> Rejected:
        return Rejected(f"{url} is larger than {self.max_bytes:,} bytes", code="too_large")


def _wait_s(said: str | None) -> float | None:
    """Of Retry-After: seconds or a date; None for neither."""
    if said is None:
        return None
    if said.strip().isdecimal():
        return min(float(said), MAX_WAIT_S)
    try:
        due = parsedate_to_datetime(said)
    except ValueError:
        return None
    if due.tzinfo is None:
        return None
    return min(max((due - clock.now()).total_seconds(), 0.0), MAX_WAIT_S)
