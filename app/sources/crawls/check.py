"""Check crawls whose events were lost: a self-hosted Firecrawl sends each event once, so its status is requested."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.clients import firecrawl
from app.clients.firecrawl import firecrawl as client
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import NotFound
from app.documents import urls
from app.documents.accept import quota
from app.documents.accept.accept import accept
from app.documents.models import DocumentVersion
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.schedules.store import DEFAULT_TENANT
from app.jobs.worker.progress import Progress
from app.sources.crawls import crawls
from app.sources.models import CrawlSession
from app.sources.payloads.firecrawl_events import page_of

# Events may be in transit for this long.
QUIET_AFTER = timedelta(minutes=2)
# Firecrawl forgets a crawl a day after its end.
FORGOTTEN_AFTER = timedelta(hours=24)
BATCH = 100
_CHECKABLE = ("crawl", "batch_scrape", "scrape_batch")


async def check(progress: Progress) -> dict[str, Any]:
    """Return {checked, pages, closed}: crawls checked, missed pages accepted, crawls found to have ended."""
    claim = progress.claim
    pages = closed = 0
    rows = await read(_list_quiet, claim.tenant)
    for number, row in enumerate(rows):
        progress.report(number, len(rows), unit="crawls", message=row.crawl_id)
        if row.operation in _CHECKABLE and firecrawl.is_configured():
            accepted, ended = await _check_crawl(claim, row)
            pages, closed = pages + accepted, closed + ended
        elif row.state not in crawls.ENDED and row.started_at < clock.now() - FORGOTTEN_AFTER:
            closed += await in_transaction(_close, claim, row.id, "failed", "no event arrived for a day")
    return {"checked": len(rows), "pages": pages, "closed": closed}


def _list_quiet(session: Session, tenant: str) -> list[CrawlSession]:
    """Return crawls without a job that run, or whose reported end is not checked yet, oldest first."""
    row = CrawlSession
    now = clock.now()
    is_running = sa.and_(row.state.in_(("pending", "in_progress")), row.started_at < now - QUIET_AFTER)
    is_unchecked = sa.and_(row.state == "completed", row.checked_at.is_(None), row.completed_at > now - FORGOTTEN_AFTER)
    tenant_conditions = [] if tenant == DEFAULT_TENANT else [row.tenant == tenant]
    query = sa.select(row).where(*tenant_conditions, row.job_id.is_(None), sa.or_(is_running, is_unchecked))
    return list(session.scalars(query.order_by(row.checked_at.nulls_first(), row.id).limit(BATCH)))


async def _check_crawl(claim: Claim, row: CrawlSession) -> tuple[int, int]:
    """Return the number of new pages, and 1 if the crawl is found to have ended, else 0."""
    accepted, part = 0, None
    try:
        async for part in _parts(row):
            for document in part.data:
                accepted += await in_transaction(_accept_missed, claim, row.tenant, row.crawl_id, document)
    except NotFound:
        if row.state in crawls.ENDED or row.started_at > clock.now() - FORGOTTEN_AFTER:
            await in_transaction(_mark_checked, claim, row.id)
            return accepted, 0
        return accepted, await in_transaction(_close, claim, row.id, "failed", "Firecrawl no longer has this crawl")
    if part is not None and part.status in crawls.ENDED:
        why = None if part.status == "completed" else f"Firecrawl reports the status {part.status}"
        return accepted, await in_transaction(_close, claim, row.id, part.status, why)
    await in_transaction(_mark_checked, claim, row.id)
    return accepted, 0


def _parts(row: CrawlSession) -> Any:
    return client().crawl_pages(row.crawl_id) if row.operation == "crawl" else client().batch_pages(row.crawl_id)


def _accept_missed(session: Session, claim: Claim, tenant: str, crawl_id: str, document: dict[str, Any]) -> int:
    """Accept a page; return 1 if this crawl had not delivered it yet, else 0."""
    claims.hold(session, claim)
    page = page_of(document, crawl_id)
    if page.about is None or page.content is None or page.url is None:
        return 0
    known = sa.select(DocumentVersion.url).where(
        DocumentVersion.tenant == tenant, DocumentVersion.crawl_session == crawl_id
    )
    if urls.canonical(page.url) in {urls.canonical(url) for url in session.scalars(known) if url}:
        return 0
    quota.within(session, tenant, accept, page.about, page.content, tenant=tenant, request_id=claim.request_id)
    return 1


def _close(session: Session, claim: Claim, row_id: int, state: str, why: str | None) -> int:
    claims.hold(session, claim)
    row = session.scalars(sa.select(CrawlSession).where(CrawlSession.id == row_id).with_for_update()).one()
    row.checked_at = clock.now()
    if row.state in crawls.ENDED:
        return 0
    row.state, row.success, row.completed_at, row.error_message = state, state == "completed", clock.now(), why
    return 1


def _mark_checked(session: Session, claim: Claim, row_id: int) -> None:
    claims.hold(session, claim)
    session.execute(sa.update(CrawlSession).where(CrawlSession.id == row_id).values(checked_at=clock.now()))
