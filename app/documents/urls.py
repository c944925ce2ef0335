"""URLs of pages: which URLs name the same page, and its domain."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit, urlunsplit

from app.core.errors import InvalidInput
from app.documents.models import MAX_URL_BYTES
from app.documents.text import clean_line

TRACKING = frozenset(
    {
        "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id", "gclid", "gclsrc", "dclid",
        "gbraid", "wbraid", "fbclid", "msclkid", "mc_cid", "mc_eid", "_hsenc", "_hsmi", "hsctatracking", "igshid",
    }
)  # fmt: skip


def check_url(url: str) -> str:
    """Return the URL without surrounding blanks. Raises InvalidInput for an invalid URL."""
    cleaned = clean_line(url, MAX_URL_BYTES + 1)
    if cleaned is None:
        raise InvalidInput("url: it is empty", errors=[{"field": "url", "message": "it is empty"}])
    if len(cleaned.encode()) > MAX_URL_BYTES:
        raise InvalidInput(
            f"url: at most {MAX_URL_BYTES} bytes", errors=[{"field": "url", "message": f"over {MAX_URL_BYTES} bytes"}]
        )
    _split(cleaned)
    return cleaned


def canonical(url: str) -> str:
    """Return the form shared by every spelling of the URL: host in lower case, no fragment, no tracking parameters."""
    parts = _split(url)
    pairs = [pair for pair in parts.query.split("&") if pair.split("=", 1)[0].lower() not in TRACKING]
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{user}{at}{host.lower()}", parts.path, "&".join(pairs), ""))


def domain(url: str) -> str | None:
    """Return host and port as written."""
    return _split(url).netloc.rpartition("@")[2][:300] or None


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InvalidInput(f"url: {error}", errors=[{"field": "url", "message": str(error)}]) from error
