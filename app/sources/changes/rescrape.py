"""Fetch a changed page again: confirm the watch's URL, fetch the page, and index what is new."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from app.clients.changedetection import changedetection, is_set_up
from app.clients.changedetection_answers import Watch
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import ConfigError, LimitReached, NotFound, OutsideError, Rejected, Snooze, Unavailable
from app.documents import catalog
from app.documents.accept import quota
from app.documents.accept.accept import About, find_or_make, receive
from app.documents.ingest.ingest import ingest
from app.documents.models import Document, DocumentVersion
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.changes import changes
from app.sources.changes.changes import Confirmation
from app.sources.changes.jobs import Rescrape
from app.sources.fetching.fetch_page import FetchedPage, fetch_page
from app.sources.models import ChangeEvent
from app.sources.payloads.change_bodies import is_page_url, is_template, strip_source

# A template of a URL can be expanded by changedetection.io only; its changes wait this long for an answer.
MAX_TEMPLATE_WAIT = timedelta(days=1)
TEMPLATE_RETRY_S = 300.0


async def rescrape(job: Rescrape, progress: Progress) -> dict[str, Any]:
    """Return the result of ingest() with the event's id."""
    claim = progress.claim
    progress.report(stage="confirm")
    event = await in_transaction(changes.begin, claim, job.event_id)
    confirmation = await _confirm(event)
    await in_transaction(changes.record_confirmation, claim, event.id, confirmation)
    url = confirmation.url
    progress.report(stage="fetch", message=url)
    page = await fetch_page(url)
    # The quota's lock first and the job's after it, the order in which requests take them.
    document_id, version_id = await in_transaction(quota.within, claim.tenant, _store, claim, event.id, url, page)
    result = await ingest(document_id, version_id, progress)
    return result | {"event_id": str(event.id)}


async def _confirm(event: ChangeEvent) -> Confirmation:
    """Return the address to read: that of the watch if changedetection.io names it, else the event's own.

    The sender of the event is verified, so a missing answer does not keep the change from being read. Only a template
    cannot be read without an answer: raises Snooze while changedetection.io is down, and then Rejected.
    """
    if await read(changes.is_known, event):
        return Confirmation(event.url)
    if event.watch_id is None or not is_set_up():
        reason = "the notification names no watch" if event.watch_id is None else "changedetection.io is not set up"
        return _unconfirmed(event, reason)
    try:
        watch = await changedetection().watch(event.watch_id)
    except (Unavailable, LimitReached) as error:
        if is_template(event.url) and clock.now() < event.received_at + MAX_TEMPLATE_WAIT:
            raise Snooze(error.retry_after_s or TEMPLATE_RETRY_S, error.message, code=error.code) from error
        return _unconfirmed(event, error.message)
    except (NotFound, OutsideError, ConfigError) as error:
        return _unconfirmed(event, error.message)
    url = address_of(watch)
    return Confirmation(url) if url else _unconfirmed(event, f"the watch has the address {watch.url[:200]!r}")


def address_of(watch: Watch) -> str | None:
    """Return the address that the watch reads, or None if it is no page on the web."""
    for text in (watch.link, watch.url):
        url = strip_source(text)
        if is_page_url(url) and not is_template(url):
            return url
    return None


def _unconfirmed(event: ChangeEvent, reason: str) -> Confirmation:
    if is_template(event.url):
        raise Rejected(f"{event.url} is a template that cannot be expanded: {reason}", code="watch_template")
    return Confirmation(event.url, reason)


def _store(session: Session, claim: Claim, event_id: int, url: str, page: FetchedPage) -> tuple[int, int]:
    """Store the page as a new version of its document, with the fields of the version before."""
    claims.hold(session, claim)
    event = session.get_one(ChangeEvent, event_id)
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
