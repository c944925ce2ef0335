"""Many pages at once, by Firecrawl alone: begun, looked at, cancelled, and what failed, in the old service's shape."""

from __future__ import annotations

from typing import Any

from app.clients.firecrawl import firecrawl
from app.core.errors import InvalidInput
from app.core.guard import is_private_by_name
from app.sources.scraping.scrape import PageRequest, firecrawl_options


async def start(urls: list[str], wish: PageRequest) -> dict[str, Any]:
    """`wish` says how they are wanted; its own URL does not count. Raises InvalidInput for a private address."""
    for url in urls:
        if is_private_by_name(url):
            raise InvalidInput(f"urls: {url} is not on the public internet", code="private_address")
    asked = {"urls": urls, **firecrawl_options(wish.formats, wish.timeout_ms, wish.options)}
    batch_id, invalid = await firecrawl().start_batch(asked)
    count = len(urls) - len(invalid)
    message = f"Batch scrape started for {count} URLs; ask for its status with this jobId"
    return _shown(batch_id, "scraping", message, total=count, completed=0, urls=count)


async def status(batch_id: str) -> dict[str, Any]:
    found = await firecrawl().batch_status(batch_id, limit=1)
    percent = round(100 * found.completed / found.total) if found.total > 0 else 0
    message = f"Batch scrape progress: {found.completed}/{found.total} URLs completed ({percent}%)"
    return _shown(
        batch_id,
        found.status,
        message,
        total=found.total,
        completed=found.completed,
        credits_used=found.credits_used,
        expires_at=found.expires_at,
    )


async def cancel(batch_id: str) -> dict[str, Any]:
    """Raises Conflict where it has ended."""
    await firecrawl().cancel_batch(batch_id)
    return _shown(batch_id, "cancelled", "Batch scrape cancelled")


async def errors(batch_id: str) -> dict[str, Any]:
    found = await firecrawl().batch_errors(batch_id)
    rows = [{name: str(one.get(name) or "") for name in ("url", "error", "timestamp")} for one in found]
    return {"jobId": batch_id, "errors": rows, "message": f"Found {len(rows)} errors in batch scrape"}


def _shown(
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
