"""robots.txt, as RFC 9309 reads it: asked once an hour of each origin, and kept for all workers."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

from protego import Protego

from app.core import clock, redis
from app.core.errors import ConfigError, Rejected, TooManyRedirects, Unavailable
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.sources.fetching.download import PORTS, download, split_url

MAX_BYTES = 500 * 1024
CACHE_S = 3600
# How long a robots.txt that could not be had is not asked for again.
RETRY_S = 60
_MAX_CACHED = 1000
_NOT_NOW = "!"  # what is kept begins with one of these
_TEXT = "="

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RobotsRules:
    """What one robots.txt says to us."""

    parsed: Protego
    origin: str

    def allowed(self, url: str) -> bool:
        return self.parsed.can_fetch(url, get_settings().fetch_user_agent)

    @property
    def crawl_delay_s(self) -> float | None:
        return self.parsed.crawl_delay(get_settings().fetch_user_agent)

    @property
    def sitemaps(self) -> list[str]:
        return [urljoin(self.origin, said) for said in self.parsed.sitemaps]

    def check(self, url: str) -> None:
        """Raises Rejected where the page is forbidden to us."""
        if not self.allowed(url):
            raise Rejected(f"the robots.txt of {self.origin} forbids {url}", code="robots")


async def rules(url: str) -> RobotsRules:
    """Those of the URL's origin; with MILLRACE_FETCH_ROBOTS=off everything is allowed, and nobody is asked.

    Raises Unavailable where the server has none to give now: until it has, nothing of it may be fetched.
    """
    known = await known_rules(url)
    if known is not None:
        return known
    origin = _origin(url)
    try:
        text = await _asked(origin)
    except Unavailable as error:
        await asyncio.to_thread(_keep, origin, _NOT_NOW + error.message, RETRY_S)
        raise Unavailable(
            f"robots.txt: {error.message}", code="robots_unavailable", retry_after_s=error.retry_after_s or RETRY_S
        ) from error
    await asyncio.to_thread(_keep, origin, _TEXT + text, CACHE_S)
    return await _read(origin, text)


async def known_rules(url: str) -> RobotsRules | None:
    """The same without asking the server; None where nobody did in the last hour."""
    origin = _origin(url)
    if get_settings().fetch_robots == "off":
        return await _read(origin, "")
    kept = await asyncio.to_thread(_kept, origin)
    if kept is None:
        return None
    if kept.startswith(_NOT_NOW):
        raise Unavailable(f"robots.txt: {kept[1:]}", code="robots_unavailable", retry_after_s=RETRY_S)
    return await _read(origin, kept[1:])


async def allowed(url: str) -> bool:
    """Whether we may fetch it. Raises as rules() does."""
    return (await rules(url)).allowed(url)


async def crawl_delay(url: str) -> float | None:
    """Seconds between two requests that its site asks for. Raises as rules() does."""
    return (await rules(url)).crawl_delay_s


async def sitemaps(url: str) -> list[str]:
    """Where its site's sitemaps are, as far as robots.txt says. Raises as rules() does."""
    return (await rules(url)).sitemaps


def _origin(url: str) -> str:
    parts = split_url(url)
    host = parts.hostname or ""
    literal = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{literal}:{parts.port or PORTS[parts.scheme]}"


async def _asked(origin: str) -> str:
    """The text; empty, which allows everything, where there is none. Raises Unavailable."""
    asked = origin.removesuffix(f":{PORTS[urlsplit(origin).scheme]}")
    try:
        found = await download(f"{asked}/robots.txt", accept="text/plain,*/*;q=0.1", max_bytes=MAX_BYTES, cut=True)
    except TooManyRedirects:
        return ""
    if found.status_code == 429 or found.status_code >= 500:
        found.check_status()
    return found.body.decode("utf-8", "replace") if 200 <= found.status_code < 300 else ""


async def _read(origin: str, text: str) -> RobotsRules:
    return RobotsRules(await asyncio.to_thread(_parsed, text), origin)


@lru_cache(maxsize=64)
def _parsed(text: str) -> Protego:
    return Protego.parse(text.removeprefix("\ufeff"))


def _kept(origin: str) -> str | None:
    try:
        return redis.push().call(lambda client: client.get(_name(origin)))  # type: ignore[return-value]
    except (Unavailable, ConfigError):
        return _memory.get(origin)


def _keep(origin: str, said: str, seconds: int) -> None:
    try:
        redis.push().call(lambda client: client.set(_name(origin), said, ex=seconds))
    except (Unavailable, ConfigError) as error:
        log.info("robots_kept_alone", origin=origin, reason=error.message)
        _memory.put(origin, said, seconds)


def _name(origin: str) -> str:
    return redis.ROBOTS.format(hashlib.sha256(origin.encode("utf-8", "replace")).hexdigest()[:32])


class _Memory:
    """The same in this process, while Redis is away."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def get(self, origin: str) -> str | None:
        with self._lock:
            due, said = self._said.get(origin, (0.0, ""))
            return said if due > clock.monotonic() else None

    def put(self, origin: str, said: str, seconds: int) -> None:
        with self._lock:
            if len(self._said) >= _MAX_CACHED:
                self._said.clear()
            self._said[origin] = (clock.monotonic() + seconds, said)


_memory = _Memory()
