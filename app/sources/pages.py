"""A page by its address alone: accepted now, fetched and indexed by a job."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import in_transaction
from app.documents import catalog, quota, urls
from app.documents.accept import About, Content, Reach, find_or_make, receive
from app.documents.ingest import ingest
from app.jobs import ledger
from app.jobs.enqueue import enqueue
from app.jobs.ledger import Claim
from app.jobs.models import JobRow
from app.jobs.progress import Progress
from app.sources.fetch import Page, fetch, target
from app.sources.jobs import FetchPage


def accept_page(
    session: Session, about: About, *, tenant: str, request_id: str | None = None, reach: Reach = None
) -> JobRow:
    """The job that will fetch it. Raises InvalidInput for what cannot be fetched."""
    url = urls.checked(about.url or "")
    target(url)
    document_id = find_or_make(session, about, tenant=tenant, reach=reach)
    fields = about.fields()
    job = FetchPage(document_id=document_id, url=url, **fields)
    return enqueue(session, job, tenant=tenant, request_id=request_id, document_id=document_id)


async def fetch_and_ingest(job: FetchPage, progress: Progress) -> dict[str, Any]:
    """What ingest() returns, of the page as it is now. Raises Conflict where the tenant's quota has no room for it."""
    progress.report(stage="fetch", message=job.url)
    spent: dict[str, float] = {}
    started = clock.monotonic()
    page = await fetch(job.url)
    spent["fetch"] = _ms_since(started)
    started = clock.monotonic()
    # The quota's lock first and the job's after it, the order in which requests take them.
    version_id = await in_transaction(quota.within, progress.claim.tenant, _keep, progress.claim, job, page)
    spent["store"] = _ms_since(started)
    result = await ingest(job.document_id, version_id, progress)
    return result | {"timings_ms": spent | result["timings_ms"]}


def _ms_since(started: float) -> float:
    return round(1000 * (clock.monotonic() - started), 2)


def _keep(session: Session, claim: Claim, job: FetchPage, page: Page) -> int:
    ledger.hold(session, claim)
    catalog.get(session, claim.tenant, str(job.document_id), lock=True)
    content = Content(
        page.format, page.text, resolved_url=page.url, status_code=page.status_code, fetched_at=clock.now()
    )
    return receive(session, job.document_id, job.about(), content, tenant=claim.tenant)
