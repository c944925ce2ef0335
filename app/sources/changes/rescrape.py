"""A page that is said to have changed: the watch asked whether it is so, the page read again, what is new indexed."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.clients.changedetection import changedetection, is_set_up
from app.core.db import in_transaction, read
from app.core.errors import NotFound, Rejected
from app.documents import catalog
from app.documents.accept import quota
from app.documents.accept.accept import About, find_or_make, known_id, receive
from app.documents.ingest.ingest import ingest
from app.documents.models import Document, DocumentVersion
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.changes import changes
from app.sources.changes.jobs import Rescrape
from app.sources.fetching.fetch_page import FetchedPage, fetch_page
from app.sources.models import ChangeEvent


async def rescrape(job: Rescrape, progress: Progress) -> dict[str, Any]:
    """What ingest() returns, and which event it was."""
    claim = progress.claim
    progress.report(stage="confirm")
    event = await in_transaction(changes.begin, claim, job.event_id)
    url = event.url if await read(changes.is_known, event) else await _confirmed(event)
    progress.report(stage="fetch", message=url)
    page = await fetch_page(url)
    # The quota's lock first and the job's after it, the order in which requests take them.
    document_id, version_id = await in_transaction(quota.within, claim.tenant, _keep, claim, event.id, url, page)
    result = await ingest(document_id, version_id, progress)
    return result | {"event_id": str(event.id)}


async def _confirmed(event: ChangeEvent) -> str:
    """The address of the watch as its own instance has it: a notification may claim any.

    Raises Rejected where there is no such watch.
    """
    if event.watch_id is None or not is_set_up():
        return event.url
    try:
        return (await changedetection().watch(event.watch_id)).url
    except NotFound as error:
        raise Rejected(f"changedetection.io has no watch {event.watch_id}", code="watch_unknown") from error


def _keep(session: Session, claim: Claim, event_id: int, url: str, page: FetchedPage) -> tuple[int, int]:
    """The page as a new version of its document, with all that was said of it before."""
    claims.hold(session, claim)
    event = session.get_one(ChangeEvent, event_id)
    if event.url != url:  # the watch is of another page than its notification said
        event.url, event.document_id = url, known_id(session, About(url=url), tenant=claim.tenant)
    document = None if event.document_id is None else session.get(Document, event.document_id)
    about = About(url=url, source="changedetection") if document is None else _as_before(session, document)
    document_id = find_or_make(session, about, tenant=claim.tenant) if document is None else document.id
    catalog.get(session, claim.tenant, str(document_id), lock=True)
    event.document_id = document_id
    return document_id, receive(session, document_id, page.about(about), page.content, tenant=claim.tenant)


def _as_before(session: Session, document: Document) -> About:
    """What was given with the current version; what was read out of it is read anew."""
    current = None if document.version_id is None else session.get(DocumentVersion, document.version_id)
    given = dict(current.fields) if current is not None else {}
    given["tags"] = tuple(given.get("tags", ()))
    return About(url=document.url, external_id=document.external_id, **given)
