"""Fetch a changed page again: confirm the watch's URL, fetch the page, and index what is new."""

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
    """Return the result of ingest() with the event's id."""
    claim = progress.claim
    progress.report(stage="confirm")
    event = await in_transaction(changes.begin, claim, job.event_id)
    url = event.url if await read(changes.is_known, event) else await _confirm_url(event)
    progress.report(stage="fetch", message=url)
    page = await fetch_page(url)
    # The quota's lock first and the job's after it, the order in which requests take them.
    document_id, version_id = await in_transaction(quota.within, claim.tenant, _store, claim, event.id, url, page)
    result = await ingest(document_id, version_id, progress)
    return result | {"event_id": str(event.id)}


async def _confirm_url(event: ChangeEvent) -> str:
    """Return the URL of the watch as its instance reports it, since a notification may contain any URL.

    Raises Rejected if there is no such watch.
    """
    if event.watch_id is None or not is_set_up():
        return event.url
    try:
        return (await changedetection().watch(event.watch_id)).url
    except NotFound as error:
        raise Rejected(f"changedetection.io has no watch {event.watch_id}", code="watch_unknown") from error


def _store(session: Session, claim: Claim, event_id: int, url: str, page: FetchedPage) -> tuple[int, int]:
    """Store the page as a new version of its document, with the fields of the version before."""
    claims.hold(session, claim)
    event = session.get_one(ChangeEvent, event_id)
    if event.url != url:  # the notification named another page than the watch
        event.url, event.document_id = url, known_id(session, About(url=url), tenant=claim.tenant)
    document = None if event.document_id is None else session.get(Document, event.document_id)
    about = About(url=url, source="changedetection") if document is None else _current_fields(session, document)
    document_id = find_or_make(session, about, tenant=claim.tenant) if document is None else document.id
    catalog.get(session, claim.tenant, str(document_id), lock=True)
    event.document_id = document_id
    return document_id, receive(session, document_id, page.about(about), page.content, tenant=claim.tenant)


def _current_fields(session: Session, document: Document) -> About:
    """Return the fields submitted with the current version; fields extracted from its text are extracted again."""
    current = None if document.version_id is None else session.get(DocumentVersion, document.version_id)
    fields = dict(current.fields) if current is not None else {}
    fields["tags"] = tuple(fields.get("tags", ()))
    return About(url=document.url, external_id=document.external_id, **fields)
