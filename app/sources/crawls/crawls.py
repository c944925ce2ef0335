"""Crawls and their state, updated by events; pages are counted on request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.clock import moment
from app.core.errors import NotFound
from app.core.ids import is_uuid
from app.core.inserts import add_unless_there
from app.documents.jobs import IngestDocument
from app.documents.models import DocumentVersion
from app.documents.text import clean_line
from app.jobs.models import JobRow
from app.jobs.states import OPEN
from app.sources.crawls import counts
from app.sources.crawls.counts import STAGES, PageCounts, visible_deliveries
from app.sources.models import CrawlPage, CrawlSession, Delivery
from app.sources.payloads.firecrawl_events import FirecrawlEvent

# Operations that end with their response.
_SYNCHRONOUS = {"search", "scrape", "map"}
ENDED = ("completed", "failed", "cancelled")
CRAWL = cast(sa.Table, CrawlSession.__table__)
_CRAWL = sa.select(CRAWL.c.id, CRAWL.c.state, CRAWL.c.base_url, CRAWL.c.initiated_at, CRAWL.c.extra).where(
    CRAWL.c.tenant == sa.bindparam("of"), CRAWL.c.crawl_id == sa.bindparam("crawl")
)
_REQUESTER = (
    sa.select(CRAWL.c.tenant, CRAWL.c.crawl_id).where(CRAWL.c.remote_id == sa.bindparam("crawl")).order_by(CRAWL.c.id)
)
MAX_PAGES = 10_000
# Metadata of events; an event that would exceed this adds none.
MAX_EXTRA_CHARACTERS = 16 * 1024


def follow(session: Session, tenant: str, event: FirecrawlEvent) -> None:
    """Update the crawl with the event; create it if this is its first event, and never reopen it.

    Most events are pages and change nothing. They take no lock; otherwise all pages of a crawl would wait for each
    other's commits.
    """
    assert event.crawl_id is not None
    connection, crawl = session.connection(), {"of": tenant, "crawl": event.crawl_id}
    row = connection.execute(_CRAWL, crawl).one_or_none()
    if row is None:
        add_unless_there(session, CrawlSession, _new(tenant, event))
    elif not _changes(row, event):
        return
    row = connection.execute(_CRAWL.with_for_update(), crawl).one()
    changes = _changes(row, event)
    if changes:
        connection.execute(sa.update(CRAWL).where(CRAWL.c.id == row.id).values(changes))


def _new(tenant: str, event: FirecrawlEvent) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "crawl_id": event.crawl_id,
        "operation": event.operation,
        "state": "in_progress",
        "started_at": clock.now(),
    }


def _changes(row: Any, event: FirecrawlEvent) -> dict[str, Any]:
    """Return the columns that the event changes."""
    changes: dict[str, Any] = {}
    url, extra = event.metadata.get("url"), {**row.extra, **event.metadata}
    base_url = clean_line(url, 2000) if isinstance(url, str) else None
    initiated_at = _time(event.metadata.get("initiated_at"))
    if row.base_url is None and base_url is not None:
        changes["base_url"] = base_url
    if row.initiated_at is None and initiated_at is not None:
        changes["initiated_at"] = initiated_at
    if extra != row.extra and len(json.dumps(extra, default=str)) <= MAX_EXTRA_CHARACTERS:
        changes["extra"] = extra
    if row.state == "pending":
        changes |= {"state": "in_progress", "started_at": clock.now()}
    failed = not event.success and event.step != "page"
    if row.state in ENDED or not (event.ends or failed):
        return changes
    state = "failed" if failed else event.step
    reason = clean_line(event.error, 2000) or ("no reason was given" if state == "failed" else None)
    end = {"state": state, "success": state == "completed", "completed_at": clock.now(), "error_message": reason}
    return changes | end


def begin(
    session: Session,
    tenant: str,
    crawl_id: str,
    *,
    operation: str,
    base_url: str | None,
    job_id: str | None = None,
    is_remote: bool = False,
) -> CrawlSession:
    """Create a requested crawl: pending until its first event, which may already have arrived.

    An operation that ends with its response is completed. `is_remote`: `crawl_id` is Firecrawl's id, and the crawl's
    events belong to this tenant.
    """
    row = _find_or_create(session, tenant, crawl_id, operation, "pending")
    row.remote_id = crawl_id if is_remote else row.remote_id
    row.base_url = row.base_url or clean_line(base_url, 2000)
    row.initiated_at = row.initiated_at or row.started_at
    row.job_id = job_id
    if operation in _SYNCHRONOUS:
        row.state, row.success, row.completed_at = "completed", True, clock.now()
        row.checked_at = row.completed_at  # its response has all pages
    return row


def cancel(session: Session, tenant: str, crawl_id: str) -> None:
    """Record that the crawl was cancelled; does nothing if it is unknown or has ended."""
    end(session, tenant, crawl_id, "cancelled")


def close(session: Session, job: JobRow) -> CrawlSession | None:
    """End the crawl of this job in the job's state and return it."""
    query = sa.select(CrawlSession).where(CrawlSession.tenant == job.tenant, CrawlSession.crawl_id == job.id)
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is not None:
        row.state = "completed" if job.state == "succeeded" else job.state
        row.success, row.completed_at = row.state == "completed", clock.now()
        row.error_message = clean_line(job.error_message, 2000)
    return row


def find_requester(session: Session, crawl_id: str) -> tuple[str, bool] | None:
    """Return the tenant that started this Firecrawl run through us, or None if none did.

    The second value is True for the run of a crawl job, which requests the pages itself.
    """
    row = session.connection().execute(_REQUESTER, {"crawl": crawl_id}).first()
    return None if row is None else (row.tenant, row.crawl_id != crawl_id)


def may_reach(session: Session, tenant: str, run_id: str, *, unrecorded: bool) -> bool:
    """Return True if this run of Firecrawl is the tenant's; for a run that no tenant started here, `unrecorded`.

    The tenant that started a run has it, whichever tenant its first event was stored for.
    """
    for column in (CrawlSession.remote_id, CrawlSession.crawl_id):
        owners = set(session.scalars(sa.select(CrawlSession.tenant).where(column == run_id)))
        if owners:
            return tenant in owners
    return unrecorded


def end(session: Session, tenant: str, crawl_id: str, state: str) -> None:
    """Record the end of a run that Firecrawl reported; does nothing if it is unknown or has ended."""
    conditions = (CrawlSession.tenant == tenant, CrawlSession.crawl_id == crawl_id)
    row = session.scalars(sa.select(CrawlSession).where(*conditions).with_for_update()).one_or_none()
    if row is not None and row.state not in ENDED:
        row.state, row.success, row.completed_at = state, state == "completed", clock.now()


def is_known(session: Session, tenant: str, crawl_id: str) -> bool:
    query = sa.select(CrawlSession.id).where(CrawlSession.tenant == tenant, CrawlSession.crawl_id == crawl_id)
    return session.scalar(query) is not None


def get(session: Session, tenant: str, crawl_id: str) -> CrawlSession:
    """Return the tenant's crawl. Raises NotFound."""
    query = sa.select(CrawlSession).where(CrawlSession.tenant == tenant, CrawlSession.crawl_id == crawl_id)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound(f"Crawl not found: {crawl_id}", code="crawl_not_found")
    return row


def list_crawls(session: Session, tenant: str, *, before_id: int | None, limit: int) -> list[CrawlSession]:
    """Return the tenant's crawls, newest first."""
    query = sa.select(CrawlSession).where(CrawlSession.tenant == tenant)
    if before_id is not None:
        query = query.where(CrawlSession.id < before_id)
    return list(session.scalars(query.order_by(CrawlSession.id.desc()).limit(limit)))


def describe_all(session: Session, rows: Sequence[CrawlSession]) -> dict[str, dict[str, Any]]:
    """Return describe() of each crawl by id; all must be of one tenant, and are counted together."""
    counts_by_crawl = counts.count_pages(session, rows[0].tenant, [row.crawl_id for row in rows]) if rows else {}
    return {row.crawl_id: _view(row, counts_by_crawl[row.crawl_id]) for row in rows}


def describe(session: Session, row: CrawlSession, *, per_page: bool = False) -> dict[str, Any]:
    """Return the crawl as JSON, with its current page counts and the total time of each stage."""
    pages = _pages(session, row)
    states = Counter(page["state"] for page in pages)
    spent_ms = {name: round(sum(page["timings"].get(name, 0.0) for page in pages), 2) for name in STAGES}
    view = _view(row, PageCounts(len(pages), states["indexed"], states["failed"], spent_ms))
    if per_page:
        view["per_page_metrics"] = [_page_metric(page) for page in pages]
    return view


def _view(row: CrawlSession, counted: PageCounts) -> dict[str, Any]:
    return {
        "crawl_id": row.crawl_id,
        "crawl_url": row.base_url,
        "operation": row.operation,
        "status": row.state,
        "success": row.success,
        "started_at": moment(row.started_at),
        "completed_at": moment(row.completed_at) if row.completed_at else None,
        "duration_ms": _elapsed_ms(row.started_at, row.completed_at),
        "e2e_duration_ms": _elapsed_ms(row.initiated_at, row.completed_at),
        "total_pages": counted.pages,
        "pages_indexed": counted.indexed,
        "pages_failed": counted.failed,
        "aggregate_timing": {
            "chunking_ms": counted.spent_ms["chunk"],
            "embedding_ms": counted.spent_ms["embed"],
            "qdrant_ms": counted.spent_ms["index"],
            "bm25_ms": 0.0,  # one transaction writes both indexes
        },
        "error_message": row.error_message,
        "extra_metadata": row.extra,
    }


def _pages(session: Session, row: CrawlSession) -> list[dict[str, Any]]:
    """Return the pages of the crawl: URL, state (indexed, failed, waiting) and the job's timings."""
    conditions = (DocumentVersion.tenant == row.tenant, DocumentVersion.crawl_session == row.crawl_id)
    columns = (DocumentVersion.id, DocumentVersion.document_id, DocumentVersion.url, DocumentVersion.state)
    versions = session.execute(
        sa.select(*columns).where(*conditions).order_by(DocumentVersion.id).limit(MAX_PAGES)
    ).all()
    jobs: dict[int, JobRow] = {}
    ids = [version.document_id for version in versions]
    for first in range(0, len(ids), 500):
        query = sa.select(JobRow).where(JobRow.document_id.in_(ids[first : first + 500]), JobRow.tenant == row.tenant)
        for job in session.scalars(query.where(JobRow.kind == IngestDocument.kind).order_by(JobRow.id)):
            jobs[int(job.payload.get("version_id", 0))] = job
    return [*(_page(version, jobs.get(version.id)) for version in versions), *_failures(session, row)]


def _failures(session: Session, row: CrawlSession) -> list[dict[str, Any]]:
    """Return pages that could not be fetched or were refused: they have no document version."""
    query = sa.select(Delivery.failures, Delivery.received_at).where(
        *visible_deliveries(row.tenant), Delivery.crawl_id == row.crawl_id, Delivery.failures.is_not(None)
    )
    failed = [
        (failure["url"], failure["error"], at)
        for failures, at in session.execute(query.order_by(Delivery.id).limit(MAX_PAGES))
        for failure in failures
    ]
    if is_uuid(row.crawl_id):  # a crawl that a job of ours does
        own = sa.select(CrawlPage.url, CrawlPage.error_message, CrawlPage.created_at)
        own = own.where(CrawlPage.crawl_id == row.crawl_id, CrawlPage.state == "failed")
        failed += [(url, error, at) for url, error, at in session.execute(own.order_by(CrawlPage.id).limit(MAX_PAGES))]
    return [{"url": url, "state": "failed", "timings": {}, "error": error, "at": at} for url, error, at in failed]


def _page(version: Any, job: JobRow | None) -> dict[str, Any]:
    state = "waiting"
    if version.state != "received":
        state = "indexed"
    elif job is None or job.state not in OPEN:
        state = "failed"
    result = job.result if job is not None and job.result else {}
    return {
        "url": version.url,
        "state": state,
        "timings": result.get("timings_ms", {}),
        "error": job.error_message if job is not None else None,
        "at": job.finished_at if job is not None else None,
    }


def _page_metric(page: dict[str, Any]) -> dict[str, Any]:
    return {
        "url": page["url"],
        "operation_type": "indexing",
        "operation_name": "index_document",
        "duration_ms": round(sum(page["timings"].values()), 2),
        "success": None if page["state"] == "waiting" else page["state"] == "indexed",
        "error_message": page["error"],
        "timestamp": moment(page["at"]) if page["at"] else None,
    }


def _find_or_create(session: Session, tenant: str, crawl_id: str, operation: str, state: str) -> CrawlSession:
    conditions = (CrawlSession.tenant == tenant, CrawlSession.crawl_id == crawl_id)
    query = sa.select(CrawlSession).where(*conditions).with_for_update()
    row = session.scalars(query).one_or_none()
    if row is not None:
        return row
    add_unless_there(
        session,
        CrawlSession,
        {
            "tenant": tenant, "crawl_id": crawl_id, "operation": operation, "state": state, "extra": {},
            "started_at": clock.now(),
        },
    )  # fmt: skip
    return session.scalars(query).one()


def _time(value: Any) -> datetime | None:
    """Parse an ISO time; without a zone it is UTC. Return None for any other value."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _elapsed_ms(first: datetime | None, last: datetime | None) -> float | None:
    return None if first is None or last is None else round((last - first).total_seconds() * 1000, 2)
