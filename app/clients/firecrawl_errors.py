"""Firecrawl's refusals as our errors: by status first, then by its own code.

PageFault marks failures that the page caused, and not Firecrawl or our request.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from app.core import clock
from app.core.errors import AppError, Conflict, NotFound, OutsideError, Rejected, Unavailable
from app.core.http import is_temporary
from app.core.logging import get_logger

log = get_logger(__name__)

MAX_WAIT_S = 3600.0
# Credits return with the next month or a payment.
NO_CREDITS_WAIT_S = 3600.0
_RETRYABLE = {502, 503, 504}
# With status 500 these codes, or no code, may be temporary.
_TEMPORARY = {"", "UNKNOWN_ERROR", "SCRAPE_ALL_ENGINES_FAILED"}
_PAGE_CODES = {
    "SCRAPE_DNS_RESOLUTION_ERROR", "SCRAPE_SSL_ERROR", "SCRAPE_UNSUPPORTED_FILE_ERROR", "UNSUPPORTED_SITE",
    "UNSAFE_DOMAIN_BLOCKED", "SCRAPE_SITE_ERROR",
}  # fmt: skip


class PageFault(OutsideError):
    """The page caused the failure; raised as one of the two classes below."""


class PageRejected(PageFault, Rejected):
    code = "page_rejected"


class PageUnavailable(PageFault, Unavailable):
    code = "page_unavailable"


class FirecrawlTimeout(Unavailable):
    """Firecrawl did not answer in time."""

    code = "firecrawl_timeout"


class FirecrawlNotConfigured(Unavailable):
    code = "firecrawl_not_configured"


class InvalidResponse(Rejected):
    """The response does not have the shape of Firecrawl's API."""

    code = "firecrawl_answer"


def unreadable(why: str) -> InvalidResponse:
    return InvalidResponse(f"Firecrawl's response cannot be used: {why}")


def page_fault(status: int, url: str, reason: Any) -> PageFault:
    """Return the error for a page whose server answered this status to Firecrawl."""
    message = f"{url} answered {status}" + (f": {reason[:300]}" if isinstance(reason, str) and reason else "")
    if is_temporary(status):
        return PageUnavailable(message, code="http_status")
    return PageRejected(message, code="http_status")


def status_of(metadata: Any) -> int | None:
    """Return the HTTP status of a page in Firecrawl's metadata, or None if it states none."""
    status = metadata.get("statusCode") if isinstance(metadata, dict) else None
    if isinstance(status, str) and re.fullmatch(r"\s*[0-9]{1,3}\s*", status):
        return int(status)
    if isinstance(status, int | float) and not isinstance(status, bool) and 0 <= status <= 999:
        return int(status)
    return None


def page_error(metadata: Any, url: str) -> PageFault | None:
    """Return the error of a page that is an error page by its status or by Firecrawl's own word, else None."""
    status = status_of(metadata)
    reason = metadata.get("error") if isinstance(metadata, dict) else None
    if status is not None and status >= 400:
        return page_fault(status, url, reason)
    if not status and isinstance(reason, str) and reason.strip():
        return PageUnavailable(f"{url} was not read: {reason[:300]}", code="page_unavailable")
    return None


def refusal(status: int, body: dict[str, Any], retry_after: str, *, has_job_id: bool) -> AppError:
    """Return the error for an unsuccessful response. `has_job_id`: the request named a job of Firecrawl."""
    name = body.get("code") if isinstance(body.get("code"), str) else ""
    code, message = str(name).upper(), f"Firecrawl answers {status}: {_message_of(body)}"
    wait_s = _retry_after_s(body, retry_after)
    if status == 408:
        return FirecrawlTimeout(message, retry_after_s=wait_s)
    if status in (404, 409):
        return _job_error(status, message) if has_job_id or status == 409 else _wrong_url(message)
    if code in _PAGE_CODES or code.startswith("SCRAPE_PDF_") or (status == 403 and not code):
        kind = PageUnavailable if code == "SCRAPE_SITE_ERROR" else PageRejected
        return kind(_message_of(body), code=(code or "blocked").lower())
    if status == 429:
        return Unavailable(message, retry_after_s=wait_s or 1, code="firecrawl_limit")
    if status in (401, 402):
        log.error("firecrawl_refuses_us", status=status, reason=_message_of(body))
    if status == 401:
        return Rejected("Firecrawl refuses MILLRACE_FIRECRAWL_API_KEY", code="firecrawl_key")
    if status == 402:
        return Unavailable(message, retry_after_s=NO_CREDITS_WAIT_S, code="firecrawl_credits")
    if status in _RETRYABLE or (status == 500 and code in _TEMPORARY):
        return Unavailable(message, retry_after_s=wait_s, code="firecrawl_unavailable")
    return Rejected(message, code="firecrawl_rejected")


def _job_error(status: int, message: str) -> AppError:
    if status == 404:
        return NotFound(message, code="firecrawl_job_not_found")
    return Conflict(message, code="firecrawl_conflict")


def _wrong_url(message: str) -> Rejected:
    return Rejected(f"{message}; check MILLRACE_FIRECRAWL_URL", code="firecrawl_rejected")


def _message_of(body: dict[str, Any]) -> str:
    """Return Firecrawl's message as one line."""
    message = body.get("error") or body.get("message") or body.get("code") or "no reason given"
    return " ".join(str(message).split())[:500]


def _retry_after_s(body: dict[str, Any], retry_after: str) -> float | None:
    """Return the delay that the header (seconds or a date) or else the body asks for."""
    if retry_after:
        if retry_after.isdecimal():
            return min(float(retry_after), MAX_WAIT_S)
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        return min(max(0.0, (at - clock.now()).total_seconds()), MAX_WAIT_S)
    details = body.get("details")
    inner = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    for value in (body.get("retry_after_seconds"), inner):
        if isinstance(value, int | float) and value >= 0:
            return min(float(value), MAX_WAIT_S)
    return None
