"""Rules that decide if a URL belongs to a crawl."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from urllib.parse import urlsplit

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
    """

    start: str
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    subdomains: bool = False
    whole_domain: bool = True

    def allows(self, url: str) -> bool:
        """Return True if the URL belongs to the crawl."""
        try:
            here, start = urlsplit(url), urlsplit(self.start)
            host, home = (here.hostname or "", here.port), (start.hostname or "", start.port)
        except ValueError:
            return False
        if here.scheme not in ("http", "https") or len(url) > MAX_URL_BYTES or _NO_PAGES.search(here.path):
            return False
        if not self._same_site(host[0], home[0]) or (not self.subdomains and host[1] != home[1]):
            return False
        path = here.path or "/"
        if not self.whole_domain and not path.startswith(start.path.rpartition("/")[0] + "/"):
            return False
        if any(_matches(pattern, path) for pattern in self.exclude):
            return False
        return not self.include or any(_matches(pattern, path) for pattern in self.include)

    def _same_site(self, host: str, home: str) -> bool:
        if _bare(host) == _bare(home):
            return True
        return self.subdomains and host.endswith(f".{_bare(home)}")


def _bare(host: str) -> str:
    return host.rstrip(".").removeprefix("www.")


def _matches(pattern: str, path: str) -> bool:
    """Match with fnmatch: its expressions do not backtrack, so no pattern takes long."""
    return re.fullmatch(translate(pattern if pattern.startswith(("/", "*")) else f"/{pattern}"), path) is not None


def as_expression(pattern: str) -> str:
    """Return the pattern in Firecrawl's form: a regular expression of a path without its first slash."""
    return "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern.lstrip("/"))
