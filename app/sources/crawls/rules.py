"""Rules that decide if a URL belongs to a crawl."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

from app.core.errors import InvalidInput
from app.documents import urls
from app.documents.models import MAX_URL_BYTES

# File name endings that a crawl never fetches; other types are recognised by the response.
_NO_PAGES = re.compile(
    r"\.(?:png|jpe?g|gif|webp|svg|ico|css|js|mjs|json|xml|rss|atom|woff2?|ttf|eot|zip|gz|tar|7z|rar|exe|dmg|iso|mp[34]|"
    r"avi|mov|webm|wav|doc|xls|ppt)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CrawlRules:
    """Scope of a crawl. `include` and `exclude` are patterns of paths with * and ?, such as `/docs/*`.

    A URL must match one of `include`, if there are any, and none of `exclude`. The start URL is always fetched.
    `moved_from` is the requested start if it redirects to another site, to which the crawl has moved.
    """

    start: str
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    subdomains: bool = False
    whole_domain: bool = True
    moved_from: str | None = None

    def moved_to(self, url: str) -> CrawlRules:
        """Return the rules of the crawl after its start redirected to this URL."""
        return replace(self, start=url, moved_from=self.moved_from or self.start)

    def allows(self, url: str) -> bool:
        """Return True if the URL may be fetched; it may also redirect into the crawl from its requested site."""
        parts = _split(url)
        if parts is None or len(url) > MAX_URL_BYTES or _NO_PAGES.search(parts.path):
            return False
        homes = (self.start, self.moved_from) if self.moved_from else (self.start,)
        return any(self._same_site(parts, home) for home in homes) and self._matches_patterns(parts)

    def contains(self, url: str) -> bool:
        """Return True if a page at this address, after redirects, belongs to the crawl."""
        parts = _split(url)
        return parts is not None and self._same_site(parts, self.start) and self._matches_patterns(parts)

    def is_same_site(self, url: str) -> bool:
        """Return True if the URL is on the site of the crawl, whatever its path."""
        parts = _split(url)
        return parts is not None and self._same_site(parts, self.start)

    def _same_site(self, parts: SplitResult, home_url: str) -> bool:
        home = _split(home_url)
        if home is None:
            return False
        host, home_host = urls.site_host(parts.geturl()), urls.site_host(home_url)
        if host == home_host:
            return self.subdomains or _port(parts) == _port(home)
        return self.subdomains and host.endswith(f".{home_host}")

    def _matches_patterns(self, parts: SplitResult) -> bool:
        path, start = unquote(parts.path), urlsplit(self.start)
        if not self.whole_domain and not path.startswith(unquote(start.path).rpartition("/")[0] + "/"):
            return False
        if any(_matches(pattern, path) for pattern in self.exclude):
            return False
        return not self.include or any(_matches(pattern, path) for pattern in self.include)


@lru_cache(maxsize=1024)
def _split(url: str) -> SplitResult | None:
    """Return the parts of the canonical URL, or None if it is no web page."""
    try:
        parts = urlsplit(urls.canonical(url))
        _ = parts.port
    except (ValueError, InvalidInput):
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def _port(parts: SplitResult) -> int | None:
    """Return a port other than that of the scheme."""
    return None if parts.port == urls.DEFAULT_PORTS[parts.scheme] else parts.port


def _matches(pattern: str, path: str) -> bool:
    """Match with fnmatch: its expressions do not backtrack, so no pattern takes long."""
    expression = unquote(pattern if pattern.startswith(("/", "*")) else f"/{pattern}")
    return re.fullmatch(translate(expression), path) is not None


def as_expression(pattern: str) -> str:
    """Return the pattern in Firecrawl's form: a regular expression of a path without its first slash."""
    return "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern.lstrip("/"))
