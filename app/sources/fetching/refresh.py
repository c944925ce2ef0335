"""Redirects by `Refresh`, as a header or in a page: a browser follows them after a number of seconds."""

from __future__ import annotations

import re
from urllib.parse import urldefrag, urljoin, urlsplit

# A page that is shown for longer is read itself.
MAX_DELAY_S = 10
# The syntax of the HTML standard: seconds, then optionally the URL, with or without quotes.
_REFRESH = re.compile(r"\s*(\d{1,9})(?:\.[\d.]*)?\s*(?:[;,]\s*|\s)(?:url\s*=\s*)?+(.*)", re.IGNORECASE | re.DOTALL)


def refresh_target(value: str | None, url: str) -> str | None:
    """Return the URL that a refresh of a few seconds leads to from `url`; None if it leads to no other page."""
    match = _REFRESH.fullmatch(value or "")
    if match is None or int(match[1]) > MAX_DELAY_S:
        return None
    target = match[2].strip()
    if target[:1] in ("'", '"'):
        target = target[1:].partition(target[0])[0]
    try:
        absolute = urldefrag(urljoin(url, target.strip())).url
        parts = urlsplit(absolute)
        _ = parts.port
    except ValueError:
        return None
    is_other = absolute != urldefrag(url).url
    return absolute if target and is_other and parts.scheme in ("http", "https") and parts.hostname else None
