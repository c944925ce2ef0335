"""Crawls whose events got lost: a self-hosted Firecrawl tries to tell once, so it is asked what became of them."""

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

# Its events may still be on their way for so long.
QUIET_AFTER = timedelta(minutes=2)
# Firecrawl forgets a crawl a day after its end.
FORGOTTEN_AFTER = timedelta(hours=24)
BATCH = 100
_ASKED = ("crawl", "batch_scrape", "scrape_batch")


async def check(progress: Progress) -> dict[str, Any]:
    """{checked, pages, closed}: crawls that were asked after, pages nobody had told of, crawls that have ended."""
    claim = progress.claim
    pages = closed = 0
    found = await read(_quiet_ones, claim.tenant)
    for number, row in enumerate(found):
        progress.report(number, len(found), unit="crawls", message=row.crawl_id)
        if row.operation in _ASKED and firecrawl.is_configured():
            taken, ended = await _ask(claim, row)
            pages, closed = pages + taken, closed + ended
        elif row.state not in crawls.ENDED and row.started_at < clock.now() - FORGOTTEN_AFTER:
            closed += await in_transaction(_close, claim, row.id, "failed", "nothing was heard of it for a day")
    return {"checked": len(found), "pages": pages, "closed": closed}


def _quiet_ones(session: Session, tenant: str) -> list[CrawlSession]:
    """Of others' crawls those that run, and those whose end was told and not yet checked, the oldest first."""
    row = CrawlSession
    now = clock.now()
    runs = sa.and_(row.state.in_(("pending", "in_progress")), row.started_at < now - QUIET_AFTER)
    told = sa.and_(row.state == "completed", row.checked_at.is_(None), row.completed_at > now - FORGOTTEN_AFTER)
    mine = [] if tenant == DEFAULT_TENANT else [row.tenant == tenant]
    query = sa.select(row).where(*mine, row.job_id.is_(None), sa.or_(runs, told))
    return list(session.scalars(query.order_by(row.checked_at.nulls_first(), row.id).limit(BATCH)))


async def _ask(claim: Claim, row: CrawlSession) -> tuple[int, int]:
    """How many pages were new, and whether (1) the crawl has ended now."""
    taken, part = 0, None
    try:
        async for part in _parts(row):
            for document in part.data:
                taken += await in_transaction(_taken, claim, row.tenant, row.crawl_id, document)
    except NotFound:
        if row.state in crawls.ENDED or row.started_at > clock.now() - FORGOTTEN_AFTER:
            await in_transaction(_checked, claim, row.id)
            return taken, 0
        return taken, await in_transaction(_close, claim, row.id, "failed", "Firecrawl does not know it any more")
    if part is not None and part.status in crawls.ENDED:
        why = None if part.status == "completed" else f"Firecrawl says that it is {part.status}"
        return taken, await in_transaction(_close, claim, row.id, part.status, why)
    await in_transaction(_checked, claim, row.id)
    return taken, 0


def _parts(row: CrawlSession) -> Any:
    return client().crawl_pages(row.crawl_id) if row.operation == "crawl" else client().batch_pages(row.crawl_id)


def _taken(session: Session, claim: Claim, tenant: str, crawl_id: str, document: dict[str, Any]) -> int:
    """1 for a page that this crawl had not brought yet, which is indexed now."""
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


def _checked(session: Session, claim: Claim, row_id: int) -> None:
    claims.hold(session, claim)
    session.execute(sa.update(CrawlSession).where(CrawlSession.id == row_id).values(checked_at=clock.now()))
