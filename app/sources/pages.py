"""A page by its address alone: accepted now, fetched and indexed by a job."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import Snooze
from app.documents import catalog, urls
from app.documents.accept import quota
from app.documents.accept.accept import About, Reach, find_or_make, receive
from app.documents.ingest.ingest import ingest
from app.documents.ingest.unchanged import searchable, still_so
from app.documents.models import DocumentVersion
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.enqueue import enqueue
from app.jobs.worker.progress import Progress
from app.sources.fetching.fetch_page import FetchedPage, fetch_page
from app.sources.fetching.page_text import NotModified, Validators, split_url
from app.sources.jobs import FetchPage


def accept_page(
    session: Session, about: About, *, tenant: str, request_id: str | None = None, reach: Reach = None
) -> EnqueuedJob:
    """The job that will fetch it. Raises InvalidInput for what cannot be fetched."""
    url = urls.checked(about.url or "")
    split_url(url)
    document_id = find_or_make(session, about, tenant=tenant, reach=reach)
    fields = about.fields()
    job = FetchPage(document_id=document_id, url=url, **fields)
    return enqueue(session, job, tenant=tenant, request_id=request_id, document_id=document_id)


async def fetch_and_ingest(job: FetchPage, progress: Progress) -> dict[str, Any]:
    """What ingest() returns, of the page as it is now; at once where its server says that nothing has changed.

    Raises Conflict where the tenant's quota has no room for it, and as fetch_politely() does.
    """
    claim = progress.claim
    progress.report(stage="fetch", message=job.url)
    spent: dict[str, float] = {}
    started = clock.monotonic()
    known = await read(_known, claim.tenant, job)
    page = await fetch_page(job.url, seen=known.seen if known else None)
    if isinstance(page, NotModified):
        ended = await in_transaction(_unchanged, claim, job, known)
        if ended is not None:
            return ended
        raise Snooze(0.0, "the page was indexed anew meanwhile")
    spent["fetch"] = _ms_since(started)
    started = clock.monotonic()
    # The quota's lock first and the job's after it, the order in which requests take them.
    version_id = await in_transaction(quota.within, claim.tenant, _keep, claim, job, page)
    spent["store"] = _ms_since(started)
    result = await ingest(job.document_id, version_id, progress)
    return result | {"timings_ms": spent | result["timings_ms"]}


def _ms_since(started: float) -> float:
    return round(1000 * (clock.monotonic() - started), 2)


class _Known(NamedTuple):
    """The version that the page may still be, and what its server called it."""

    version_id: int
    seen: Validators


def _known(session: Session, tenant: str, job: FetchPage) -> _Known | None:
    """None where there is more to do than to see that the page is as it was."""
    document = catalog.get(session, tenant, str(job.document_id))
    current = session.get(DocumentVersion, document.version_id) if document.version_id else None
    if current is None or current.url != urls.checked(job.url) or current.fields != job.about().fields():
        return None
    if not (current.etag or current.last_modified) or not searchable(session, document.id):
        return None
    return _Known(current.id, Validators(current.etag, current.last_modified))


def _unchanged(session: Session, claim: Claim, job: FetchPage, known: _Known | None) -> dict[str, Any] | None:
    """The job's result; None where another version has become current meanwhile."""
    claims.hold(session, claim)
    document = catalog.get(session, claim.tenant, str(job.document_id), lock=True)
    if known is None or document.version_id != known.version_id:
        return None
    return still_so(document, session.get_one(DocumentVersion, known.version_id), clock.now())


def _keep(session: Session, claim: Claim, job: FetchPage, page: FetchedPage) -> int:
    claims.hold(session, claim)
    catalog.get(session, claim.tenant, str(job.document_id), lock=True)
    return receive(session, job.document_id, page.about(job.about()), page.content, tenant=claim.tenant)
