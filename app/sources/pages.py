"""Accept a page by its URL; a job fetches and indexes it."""

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
from app.documents.ingest.unchanged import confirm_unchanged, has_all_vectors
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
    """Enqueue the job that fetches the page. Raises InvalidInput for a URL that cannot be fetched."""
    url = urls.check_url(about.url or "")
    split_url(url)
    document_id = find_or_make(session, about, tenant=tenant, reach=reach)
    fields = about.fields().view()
    job = FetchPage(document_id=document_id, url=url, **fields)
    return enqueue(session, job, tenant=tenant, request_id=request_id, document_id=document_id)


async def fetch_and_ingest(job: FetchPage, progress: Progress) -> dict[str, Any]:
    """Return the result of ingest() for the current page; ends early if the server answers "not modified".

    Raises Conflict if the tenant's quota is used up, and the errors of fetch_politely().
    """
    claim = progress.claim
    progress.report(stage="fetch", message=job.url)
    spent: dict[str, float] = {}
    started = clock.monotonic()
    known = await read(_find_known, claim.tenant, job)
    page = await fetch_page(job.url, validators=known.validators if known else None)
    if isinstance(page, NotModified):
        result = await in_transaction(_record_unchanged, claim, job, known)
        if result is not None:
            return result
        raise Snooze(0.0, "another version was indexed during the request")
    spent["fetch"] = _ms_since(started)
    started = clock.monotonic()
    # The quota's lock first and the job's after it, the order in which requests take them.
    document_id, version_id = await in_transaction(quota.within, claim.tenant, _store, claim, job, page)
    spent["store"] = _ms_since(started)
    result = await ingest(document_id, version_id, progress)
    return result | {"timings_ms": spent | result["timings_ms"]}


def _ms_since(started: float) -> float:
    return round(1000 * (clock.monotonic() - started), 2)


class _Known(NamedTuple):
    """The current version, and the server's validators for it."""

    version_id: int
    validators: Validators


def _find_known(session: Session, tenant: str, job: FetchPage) -> _Known | None:
    """Return the current version, or None if the page must be indexed even when it has not changed."""
    if job.document_id is None:
        return None
    document = catalog.get(session, tenant, str(job.document_id))
    current = session.get(DocumentVersion, document.version_id) if document.version_id else None
    if current is None or current.url != urls.check_url(job.url) or current.fields != job.about().fields().view():
        return None
    if not (current.etag or current.last_modified) or not has_all_vectors(session, document.id):
        return None
    return _Known(current.id, Validators(current.etag, current.last_modified))


def _record_unchanged(session: Session, claim: Claim, job: FetchPage, known: _Known | None) -> dict[str, Any] | None:
    """Return the job's result, or None if another version has become current."""
    claims.hold(session, claim)
    document = catalog.get(session, claim.tenant, str(job.document_id), lock=True)
    if known is None or document.version_id != known.version_id:
        return None
    return confirm_unchanged(document, session.get_one(DocumentVersion, known.version_id), clock.now())


def _store(session: Session, claim: Claim, job: FetchPage, page: FetchedPage) -> tuple[int, int]:
    """Store the page as a new version; return the ids of its document and of the version."""
    claims.hold(session, claim)
    document_id = job.document_id
    if document_id is None:
        document_id = find_or_make(session, job.about(), tenant=claim.tenant)
    catalog.get(session, claim.tenant, str(document_id), lock=True)
    return document_id, receive(session, document_id, page.about(job.about()), page.content, tenant=claim.tenant)
