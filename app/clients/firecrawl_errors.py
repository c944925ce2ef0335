"""What Firecrawl refuses, as our errors: by status first, then by its own code.

A page that cannot be had for a reason of its own is a PageFault, whatever else it is: nobody here is to blame.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from app.core import clock
from app.core.errors import AppError, Conflict, NotFound, OutsideError, Rejected, Unavailable
from app.core.logging import get_logger

log = get_logger(__name__)

MAX_WAIT_S = 3600.0
# Credits come back with the next month, or when somebody pays.
NO_CREDITS_WAIT_S = 3600.0
_LATER = {502, 503, 504}
# Of a status 500 these, and none at all, may be gone the next time.
_MAY_PASS = {"", "UNKNOWN_ERROR", "SCRAPE_ALL_ENGINES_FAILED"}
_OF_THE_PAGE = {
    "SCRAPE_DNS_RESOLUTION_ERROR", "SCRAPE_SSL_ERROR", "SCRAPE_UNSUPPORTED_FILE_ERROR", "UNSUPPORTED_SITE",
    "UNSAFE_DOMAIN_BLOCKED", "SCRAPE_SITE_ERROR",
}  # fmt: skip


class PageFault(OutsideError):
    """The page cannot be had, and that is the page's own doing; raised as one of the two below."""


class PageRejected(PageFault, Rejected):
    code = "page_rejected"


class PageUnavailable(PageFault, Unavailable):
    code = "page_unavailable"


class FirecrawlTimeout(Unavailable):
    """It took longer than it was given."""

    code = "firecrawl_timeout"


class InvalidResponse(Rejected):
    """What came is none of Firecrawl's answers."""

    code = "firecrawl_answer"


def unreadable(why: str) -> InvalidResponse:
    return InvalidResponse(f"what Firecrawl answers cannot be used: {why}")


def page_fault(status: int, url: str, said: Any) -> PageFault:
    """Of a page whose server answered this status to Firecrawl."""
    message = f"{url} answered {status}" + (f": {said[:300]}" if isinstance(said, str) and said else "")
    if status in (408, 425, 429) or status >= 500:
        return PageUnavailable(message, code="http_status")
    return PageRejected(message, code="http_status")


def refusal(status: int, said: dict[str, Any], retry_after: str, *, of_a_job: bool) -> AppError:
    """The error for an answer that is no success. `of_a_job`: it was asked about one by its id."""
    name = said.get("code") if isinstance(said.get("code"), str) else ""
    code, message = str(name).upper(), f"Firecrawl answers {status}: {_words(said)}"
    wait_s = _told_s(said, retry_after)
    if status == 408:
        return FirecrawlTimeout(message, retry_after_s=wait_s)
    if status in (404, 409):
        return _of_a_job(status, message) if of_a_job or status == 409 else _misled(message)
    if code in _OF_THE_PAGE or code.startswith("SCRAPE_PDF_") or (status == 403 and not code):
        kind = PageUnavailable if code == "SCRAPE_SITE_ERROR" else PageRejected
        return kind(_words(said), code=(code or "blocked").lower())
    if status == 429:
        return Unavailable(message, retry_after_s=wait_s or 1, code="firecrawl_limit")
    if status in (401, 402):
        log.error("firecrawl_refuses_us", status=status, reason=_words(said))
    if status == 401:
        return Rejected("Firecrawl refuses MILLRACE_FIRECRAWL_API_KEY", code="firecrawl_key")
    if status == 402:
        return Unavailable(message, retry_after_s=NO_CREDITS_WAIT_S, code="firecrawl_credits")
    if status in _LATER or (status == 500 and code in _MAY_PASS):
        return Unavailable(message, retry_after_s=wait_s, code="firecrawl_unavailable")
    return Rejected(message, code="firecrawl_rejected")


def _of_a_job(status: int, message: str) -> AppError:
    if status == 404:
        return NotFound(message, code="firecrawl_job_not_found")
    return Conflict(message, code="firecrawl_conflict")


def _misled(message: str) -> Rejected:
    return Rejected(f"{message}; is MILLRACE_FIRECRAWL_URL right?", code="firecrawl_rejected")


def _words(said: dict[str, Any]) -> str:
    """Its own, one line."""
    found = said.get("error") or said.get("message") or said.get("code") or "no reason given"
    return " ".join(str(found).split())[:500]


def _told_s(said: dict[str, Any], retry_after: str) -> float | None:
    """How long to wait by its word: the header, in seconds or as a date, else what the body says."""
    if retry_after:
        if retry_after.isdecimal():
            return min(float(retry_after), MAX_WAIT_S)
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        return min(max(0.0, (at - clock.now()).total_seconds()), MAX_WAIT_S)
    details = said.get("details")
    inner = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    for value in (said.get("retry_after_seconds"), inner):
        if isinstance(value, int | float) and value >= 0:
            return min(float(value), MAX_WAIT_S)
    return None
