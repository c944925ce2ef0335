"""Addresses of pages: which are one page, and whose."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit, urlunsplit

from app.core.errors import InvalidInput
from app.documents.models import LONGEST_URL
from app.documents.text import clean_line

TRACKING = frozenset(
    {
        "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id", "gclid", "gclsrc", "dclid",
        "gbraid", "wbraid", "fbclid", "msclkid", "mc_cid", "mc_eid", "_hsenc", "_hsmi", "hsctatracking", "igshid",
    }
)  # fmt: skip


def checked(url: str) -> str:
    """The URL without blanks around it. Raises InvalidInput for what can be none."""
    cleaned = clean_line(url, LONGEST_URL + 1)
    if cleaned is None:
        raise InvalidInput("url: it is empty", errors=[{"field": "url", "message": "it is empty"}])
    if len(cleaned.encode()) > LONGEST_URL:
        raise InvalidInput(
            f"url: at most {LONGEST_URL} bytes", errors=[{"field": "url", "message": f"over {LONGEST_URL} bytes"}]
        )
    _split(cleaned)
    return cleaned


def canonical(url: str) -> str:
    """The same for every way to write the page: host in lower case, no fragment, no tracking parameters."""
    parts = _split(url)
    kept = [pair for pair in parts.query.split("&") if pair.split("=", 1)[0].lower() not in TRACKING]
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{user}{at}{host.lower()}", parts.path, "&".join(kept), ""))


def domain(url: str) -> str | None:
    """Host and port as written."""
    return _split(url).netloc.rpartition("@")[2][:300] or None


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InvalidInput(f"url: {error}", errors=[{"field": "url", "message": str(error)}]) from error
