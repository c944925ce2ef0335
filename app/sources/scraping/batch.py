"""Batches of pages at Firecrawl: start, status, cancel and errors, in the old service's shape."""

from __future__ import annotations

from typing import Any

from app.clients.firecrawl import firecrawl
from app.core.errors import InvalidInput
from app.core.guard import is_private_by_name
from app.sources.scraping.scrape import PageRequest, firecrawl_options


async def start(urls: list[str], request: PageRequest) -> dict[str, Any]:
    """Start a batch of the URLs with the options of `request`; its URL is ignored.

    Raises InvalidInput for a private address.
    """
    for url in urls:
        if is_private_by_name(url):
            raise InvalidInput(f"urls: {url} is not on the public internet", code="private_address")
    options = {"urls": urls, **firecrawl_options(request.formats, request.timeout_ms, request.options)}
    batch_id, invalid = await firecrawl().start_batch(options)
    count = len(urls) - len(invalid)
    message = f"Batch scrape started for {count} URLs; ask for its status with this jobId"
    return _describe(batch_id, "scraping", message, total=count, completed=0, urls=count)


async def get_status(batch_id: str) -> dict[str, Any]:
    batch = await firecrawl().batch_status(batch_id, limit=1)
    percent = round(100 * batch.completed / batch.total) if batch.total > 0 else 0
    message = f"Batch scrape progress: {batch.completed}/{batch.total} URLs completed ({percent}%)"
    return _describe(
        batch_id,
        batch.status,
        message,
        total=batch.total,
        completed=batch.completed,
        credits_used=batch.credits_used,
        expires_at=batch.expires_at,
    )


async def cancel(batch_id: str) -> dict[str, Any]:
    """Cancel the batch. Raises Conflict if it has ended."""
    await firecrawl().cancel_batch(batch_id)
    return _describe(batch_id, "cancelled", "Batch scrape cancelled")


async def list_errors(batch_id: str) -> dict[str, Any]:
    errors = await firecrawl().batch_errors(batch_id)
    rows = [{name: str(error.get(name) or "") for name in ("url", "error", "timestamp")} for error in errors]
    return {"jobId": batch_id, "errors": rows, "message": f"Found {len(rows)} errors in batch scrape"}


def _describe(
    batch_id: str,
    state: str,
    message: str,
    *,
    total: int | None = None,
    completed: int | None = None,
    credits_used: int | None = None,
    expires_at: str | None = None,
    urls: int | None = None,
) -> dict[str, Any]:
    return {
        "jobId": batch_id,
        "status": state,
        "total": total,
        "completed": completed,
        "creditsUsed": credits_used,
        "expiresAt": expires_at,
        "urls": urls,
        "message": message,
    }
