"""Delete old data in batches: each is a short transaction that holds the job, so that other writers wait briefly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.blobs import blobs
from app.core.db import in_transaction
from app.core.settings import get_settings
from app.documents.files import originals
from app.jobs.ledger import claims, removal
from app.jobs.ledger.claims import Claim
from app.jobs.models import IdempotencyRow, ScheduleTickRow, ThrottleRow
from app.jobs.sandbox import job_log
from app.jobs.worker.progress import Progress
from app.metrics.models import OperationMetric, RequestMetric
from app.retention.policy import MAX_ROWS, Policy
from app.search.index import write
from app.sources.models import ChangeEvent, CrawlSession, Delivery, ScrapedPage
from app.sources.webhooks.deliveries import find_blob_keys
from app.tenants.models import AuditEntry, BrowserSession

BATCH = 500
# Tables with a row for each request, event or page of a stranger.
STRANGERS_ROWS = (RequestMetric, OperationMetric, Delivery, ChangeEvent, CrawlSession)


async def sweep(progress: Progress, policy: Policy | None = None) -> dict[str, Any]:
    """Delete old data; return the number of deleted rows of each kind."""
    policy = policy or Policy.at(clock.now())
    deleted = {"jobs": await _sweep_jobs(progress, policy)}
    steps: dict[str, tuple[datetime | None, Callable[[Session, datetime], int]]] = {
        "log_lines": (policy.log_lines, partial(job_log.prune, limit=BATCH)),
        "schedule_ticks": (policy.schedule_ticks, delete_ticks),
        "audit_entries": (policy.audit_entries, partial(delete_before, column=AuditEntry.at)),
        "idempotency_keys": (policy.idempotency_keys, partial(delete_before, column=IdempotencyRow.created_at)),
        "sessions": (policy.throttles, partial(delete_before, column=BrowserSession.ends_at)),
        "throttles": (policy.throttles, partial(delete_before, column=ThrottleRow.free_at)),
        "deliveries": (policy.deliveries, partial(delete_before, column=Delivery.received_at)),
        "request_metrics": (policy.request_metrics, partial(delete_before, column=RequestMetric.at)),
        "operation_metrics": (policy.operation_metrics, partial(delete_before, column=OperationMetric.at)),
        "scraped_pages": (policy.scraped_pages, partial(delete_before, column=ScrapedPage.expires_at)),
        "change_events": (policy.change_events, partial(delete_before, column=ChangeEvent.received_at)),
        "stranger_metrics": (policy.stranger_metrics, delete_strangers),
        "crawls": (policy.crawls, partial(delete_before, column=CrawlSession.started_at)),
        "changes": (policy.changes, write.prune_changes),
    }
    for name, (before, delete) in steps.items():
        deleted[name] = 0
        while before is not None:
            gone = await in_transaction(_delete_batch, progress.claim, delete, before)
            deleted[name] += gone
            progress.report(sum(deleted.values()), unit="rows", message=name)
            if gone < BATCH or name == "changes":
                break
    deleted["surplus"] = await _sweep_surplus(progress)
    progress.report(sum(deleted.values()), unit="rows", message="blobs")
    deleted["blobs"] = await originals.sweep_blobs(blobs(), find_blob_keys)
    return {"deleted": deleted}


def _delete_batch(session: Session, claim: Claim, delete: Callable[[Session, datetime], int], before: datetime) -> int:
    claims.hold(session, claim)
    return delete(session, before)


async def _sweep_surplus(progress: Progress) -> int:
    """Delete the oldest rows beyond the numbers and bytes that strangers may cause; return their number."""
    deleted = 0
    steps: list[Callable[[Session, datetime], int]] = [partial(delete_surplus_bytes, limit=BATCH)]
    steps += [partial(delete_surplus, model=model, limit=BATCH) for model in STRANGERS_ROWS]
    for step in steps:
        gone = BATCH
        while gone >= BATCH:
            gone = await in_transaction(_delete_batch, progress.claim, step, clock.now())
            deleted += gone
    return deleted


async def _sweep_jobs(progress: Progress, policy: Policy) -> int:
    deleted, after = 0, ""
    while True:
        ids = await in_transaction(_delete_job_batch, progress.claim, policy, after)
        deleted += len(ids)
        progress.report(deleted, unit="rows", message="jobs")
        if len(ids) < BATCH:
            return deleted
        after = ids[-1]


def _delete_job_batch(session: Session, claim: Claim, policy: Policy, after: str) -> list[str]:
    claims.hold(session, claim)
    return removal.delete_jobs(session, policy.jobs, policy.failed_jobs, after=after, limit=BATCH)


def delete_before(session: Session, before: datetime, *, column: Any, keep: Any = None, limit: int = BATCH) -> int:
    """Delete about `limit` of the oldest rows with a column before then, except `keep`; return their number."""
    old = column < before if keep is None else sa.and_(column < before, ~keep)
    last = session.scalar(sa.select(column).where(old).order_by(column).offset(limit - 1).limit(1))
    return sql.row_count(session, sa.delete(column.class_).where(old if last is None else sa.and_(old, column <= last)))


def delete_strangers(session: Session, before: datetime) -> int:
    """Delete old refused requests of unknown callers."""
    known = sa.or_(RequestMetric.tenant.is_not(None), RequestMetric.status_code < 400)
    return delete_before(session, before, column=RequestMetric.at, keep=known)


def delete_surplus(session: Session, _: datetime, *, model: Any, max_rows: int = MAX_ROWS, limit: int = BATCH) -> int:
    """Delete up to `limit` of the oldest rows beyond the newest `max_rows`; return their number."""
    last = session.scalar(sa.select(model.id).order_by(model.id.desc()).offset(max_rows).limit(1))
    return 0 if last is None else _delete_oldest(session, model, last, limit)


def delete_surplus_bytes(session: Session, _: datetime, *, max_bytes: int | None = None, limit: int = BATCH) -> int:
    """Delete up to `limit` of the oldest deliveries beyond the newest that have `max_bytes` together."""
    total = sa.func.sum(sa.cast(Delivery.size_bytes, sa.BigInteger)).over(order_by=Delivery.id.desc()).label("total")
    sums = sa.select(Delivery.id, total).subquery()
    beyond = sums.c.total > (max_bytes or get_settings().intake_max_bytes)
    last = session.scalar(sa.select(sa.func.max(sums.c.id)).where(beyond))
    return 0 if last is None else _delete_oldest(session, Delivery, last, limit)


def _delete_oldest(session: Session, model: Any, last: int, limit: int) -> int:
    oldest = sa.select(model.id).where(model.id <= last).order_by(model.id).limit(limit)
    return sql.row_count(session, sa.delete(model).where(model.id.in_(oldest)))


def delete_ticks(session: Session, before: datetime) -> int:
    """Delete old ticks, except those that wait for an earlier job."""
    return delete_before(session, before, column=ScheduleTickRow.written_at, keep=ScheduleTickRow.outcome == "waiting")
