"""Batches of pages at Firecrawl: start, status, cancel and errors, in the old service's shape."""

from __future__ import annotations

from typing import Any

from app.clients.firecrawl import firecrawl
from app.core.db import in_transaction
from app.core.errors import InvalidInput
from app.core.network.guard import is_private_by_name
from app.sources.crawls import crawls
from app.sources.scraping import proxy
from app.sources.scraping.scrape import PageRequest, firecrawl_options

# The name under which a batch is recorded; its pages are not indexed.
OPERATION = "batch"


async def start(tenant: str, urls: list[str], request: PageRequest) -> dict[str, Any]:
    """Start a batch of the URLs with the options of `request`, and record it for the tenant; its URL is ignored.

    Raises InvalidInput for a private address.
    """
    for url in urls:
        if is_private_by_name(url):
            raise InvalidInput(f"urls: {url} is not on the public internet", code="private_address")
    options = {"urls": urls, **firecrawl_options(request.formats, request.timeout_ms, request.options)}
    batch_id, invalid = await firecrawl().start_batch(options)
    await proxy.record(proxy.RunStart(tenant, OPERATION, urls[0]), batch_id)
    count = len(urls) - len(invalid)
    message = f"Batch scrape started for {count} URLs; ask for its status with this jobId"
    return _describe(batch_id, "scraping", message, total=count, completed=0, urls=count)


async def get_status(tenant: str, batch_id: str, *, is_operator: bool) -> dict[str, Any]:
    """Return the state. Raises NotFound, also for a batch of another tenant."""
    await proxy.require_run(tenant, batch_id, is_operator=is_operator)
    batch = await firecrawl().batch_status(batch_id, limit=1)
    if batch.status in crawls.ENDED:
        await in_transaction(crawls.end, tenant, batch_id, batch.status)
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


async def cancel(tenant: str, batch_id: str, *, is_operator: bool) -> dict[str, Any]:
    """Cancel the batch. Raises Conflict if it has ended, NotFound, also for a batch of another tenant."""
    await proxy.require_run(tenant, batch_id, is_operator=is_operator)
    await firecrawl().cancel_batch(batch_id)
    await in_transaction(crawls.cancel, tenant, batch_id)
    return _describe(batch_id, "cancelled", "Batch scrape cancelled")


async def list_errors(tenant: str, batch_id: str, *, is_operator: bool) -> dict[str, Any]:
    """Return the failed pages. Raises NotFound, also for a batch of another tenant."""
    await proxy.require_run(tenant, batch_id, is_operator=is_operator)
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
