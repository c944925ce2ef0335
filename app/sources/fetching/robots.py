"""robots.txt by RFC 9309: requested once an hour from each origin, and cached for all workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from protego import Protego

from app.core.errors import Rejected, TooManyRedirects, Unavailable
from app.core.settings import get_settings
from app.sources.fetching import robots_cache
from app.sources.fetching.download import PORTS, download, split_url

MAX_BYTES = 500 * 1024
CACHE_S = 3600
# An unavailable robots.txt is requested again after this time.
RETRY_S = 60
_UNAVAILABLE = "!"  # first character of a cached value
_TEXT = "="


class RobotsForbidden(Rejected):
    """The site's robots.txt forbids the page."""

    code = "robots"


@dataclass(frozen=True, slots=True)
class RobotsRules:
    """The rules of one robots.txt for our user agent."""

    parsed: Protego
    origin: str

    def allows(self, url: str) -> bool:
        return self.parsed.can_fetch(url, get_settings().fetch_user_agent)

    @property
    def crawl_delay_s(self) -> float | None:
        return self.parsed.crawl_delay(get_settings().fetch_user_agent)

    @property
    def sitemaps(self) -> list[str]:
        return [urljoin(self.origin, url) for url in self.parsed.sitemaps]

    def check(self, url: str) -> None:
        """Raise RobotsForbidden if we may not fetch the page."""
        if not self.allows(url):
            raise RobotsForbidden(f"the robots.txt of {self.origin} forbids {url}")


async def read_rules(url: str) -> RobotsRules:
    """Return the rules of the URL's origin; with MILLRACE_FETCH_ROBOTS=off all is allowed and nothing is requested.

    Raises Unavailable if the server cannot deliver them now; until then nothing of it may be fetched.
    """
    cached = await read_cached_rules(url)
    if cached is not None:
        return cached
    origin = _origin(url)
    try:
        text = await _request(origin)
    except Unavailable as error:
        await asyncio.to_thread(robots_cache.store, origin, _UNAVAILABLE + error.message[:500], RETRY_S)
        raise Unavailable(
            f"robots.txt: {error.message}", code="robots_unavailable", retry_after_s=error.retry_after_s or RETRY_S
        ) from error
    await asyncio.to_thread(robots_cache.store, origin, _TEXT + text, CACHE_S)
    return await _parse_rules(origin, text)


async def read_cached_rules(url: str) -> RobotsRules | None:
    """Return the cached rules, or None if no worker requested them in the last hour. Raises Unavailable."""
    origin = _origin(url)
    if get_settings().fetch_robots == "off":
        return await _parse_rules(origin, "")
    cached = await asyncio.to_thread(robots_cache.read, origin)
    if cached is None:
        return None
    if cached.startswith(_UNAVAILABLE):
        raise Unavailable(f"robots.txt: {cached[1:]}", code="robots_unavailable", retry_after_s=RETRY_S)
    return await _parse_rules(origin, cached[1:])


async def allows(url: str) -> bool:
    """Return True if we may fetch the URL. Raises the errors of read_rules()."""
    return (await read_rules(url)).allows(url)


async def crawl_delay(url: str) -> float | None:
    """Return the pause in seconds that the site asks for. Raises the errors of read_rules()."""
    return (await read_rules(url)).crawl_delay_s


async def sitemaps(url: str) -> list[str]:
    """Return the sitemap URLs in the site's robots.txt. Raises the errors of read_rules()."""
    return (await read_rules(url)).sitemaps


def _origin(url: str) -> str:
    parts = split_url(url)
    host = parts.hostname or ""
    literal = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{literal}:{parts.port or PORTS[parts.scheme]}"


async def _request(origin: str) -> str:
    """Return the text of robots.txt; empty, which allows everything, if it does not exist. Raises Unavailable."""
    base = origin.removesuffix(f":{PORTS[urlsplit(origin).scheme]}")
    try:
        response = await download(
            f"{base}/robots.txt", accept="text/plain,*/*;q=0.1", max_bytes=MAX_BYTES, truncate=True
        )
    except TooManyRedirects:
        return ""
    if response.status_code == 429 or response.status_code >= 500:
        response.check_status()
    return response.body.decode("utf-8", "replace") if 200 <= response.status_code < 300 else ""


async def _parse_rules(origin: str, text: str) -> RobotsRules:
    return RobotsRules(await asyncio.to_thread(robots_cache.parsed, text, _parse, CACHE_S), origin)


def _parse(text: str) -> Protego:
    return Protego.parse(text.removeprefix("\ufeff"))
