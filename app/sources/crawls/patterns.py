"""Patterns of addresses: sites may have endless pages that differ in a parameter, such as the months of a calendar."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from urllib.parse import urlsplit

from app.core.settings import get_settings
from app.documents import urls

# Of a small crawl one pattern may be half of the pages, but always this many.
MIN_PAGES = 10
_NUMBER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![a-z])[0-9a-f]{16,}|\d+", re.IGNORECASE)
# A path that ends in a month or a day.
_DATED = re.compile(r"/(?:19|20|21)\d\d[/-](?:0?[1-9]|1[0-2])(?:[/-]\d{1,2})?/?$")
# A segment that occurs so often comes from links that lead ever deeper.
MAX_REPEATS = 3


def pattern_of(url: str) -> str | None:
    """Return the pattern of an address that a site may have in endless number; None for other addresses.

    It has `#` for numbers and the names of the parameters: `example.org/calendar?month&year`.
    """
    parts = urlsplit(urls.canonical(url))
    host, segments = urls.site_host(url), [segment for segment in parts.path.split("/") if segment]
    repeated = [segment for segment, count in Counter(segments).items() if count >= MAX_REPEATS]
    if repeated:
        return f"{host}/…/{'/'.join(sorted(set(segments)))}/…"
    if not parts.query and _DATED.search(parts.path) is None:
        return None
    path = _NUMBER.sub("#", parts.path)
    names = sorted({pair.partition("=")[0] for pair in parts.query.split("&")}) if parts.query else []
    return f"{host}{path}" + (f"?{'&'.join(names)}" if names else "")


def key_of(pattern: str) -> str:
    """Return a hash of the pattern, which may be too long for an index."""
    return hashlib.sha256(pattern.encode("utf-8", "replace")).hexdigest()


def max_pages(limit: int) -> int | None:
    """Return the maximum number of pages of one pattern in a crawl of `limit` pages; None without a maximum."""
    allowed = get_settings().crawl_pattern_pages
    return None if allowed == 0 else min(allowed, max(MIN_PAGES, limit // 2))
