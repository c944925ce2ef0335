"""Changes of pages: each is one event with one job that fetches the page again; the event records the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.clock import moment
from app.core.errors import NotFound
from app.documents import urls
from app.documents.accept.accept import About, known_id
from app.documents.models import Document
from app.documents.operations import note_end
from app.documents.text import clean_line
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.sources.models import ChangeEvent, PageWatch
from app.sources.payloads.change_bodies import PageChange


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Conditions on change events; None does not filter. `before_id` is the last id of the previous page."""

    state: str | None = None
    watch_id: str | None = None
    url: str | None = None
    document_id: int | None = None
    before_id: int | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The address to read for an event; `doubt` is the reason why changedetection.io does not confirm it, or None."""

    url: str
    doubt: str | None = None


def record(session: Session, tenant: str, change: PageChange, *, origin: str) -> ChangeEvent:
    """Store the change as an event without a job; a repeat (same watch and snapshot) returns the first event."""
    watch = _watch(session, tenant, change.watch_id)
    document_id = watch.document_id if watch else known_id(session, About(url=change.url), tenant=tenant)
    row = ChangeEvent(
        tenant=tenant,
        origin=origin,
        watch_id=change.watch_id,
        history_key=change.history_key,
        url=change.url,
        document_id=document_id,
        title=change.title,
        summary=change.diff or None,
        diff_url=change.diff_url,
        state="ignored" if watch is not None and _is_unwatched(session, watch) else "queued",
        extra=change.extra,
        detected_at=change.detected_at,
        received_at=clock.now(),
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        is_repeat = (ChangeEvent.watch_id == change.watch_id, ChangeEvent.history_key == change.history_key)
        return session.scalars(sa.select(ChangeEvent).where(ChangeEvent.tenant == tenant, *is_repeat)).one()
    return row


def start_rescrape(session: Session, event: ChangeEvent, job: Any, request_id: str | None) -> EnqueuedJob:
    """Enqueue the job that fetches the event's page again."""
    row = enqueue(session, job, tenant=event.tenant, request_id=request_id, document_id=event.document_id)
    event.state, event.job_id, event.error_message, event.ended_at = "queued", row.id, None, None
    return row


def _watch(session: Session, tenant: str, watch_id: str | None) -> PageWatch | None:
    if watch_id is None:
        return None
    query = sa.select(PageWatch).where(PageWatch.tenant == tenant, PageWatch.watch_id == watch_id)
    return session.scalars(query.order_by(PageWatch.id.desc()).limit(1)).one_or_none()


def _is_unwatched(session: Session, watch: PageWatch) -> bool:
    """Return True if the page is no longer watched or was deleted: a change must not bring back a deleted page."""
    return watch.state in ("unwanted", "removed") or session.get(Document, watch.document_id) is None


def begin(session: Session, claim: Claim, event_id: int) -> ChangeEvent:
    """Return the event; mark it in progress unless a later job owns it. Raises NotFound if it was swept."""
    claims.hold(session, claim)
    row = session.get(ChangeEvent, event_id)
    if row is None:
        raise NotFound(f"Change event {event_id} is gone", code="change_not_found")
    if row.job_id == claim.id:
        row.state = "in_progress"
    return row


def is_known(session: Session, event: ChangeEvent) -> bool:
    """Return True if the watch was made here for this page, so that its URL needs no confirmation."""
    watch = _watch(session, event.tenant, event.watch_id)
    if watch is None or watch.document_id != event.document_id:
        return False
    return urls.canonical(watch.url) == urls.canonical(event.url)


def record_confirmation(session: Session, claim: Claim, event_id: int, confirmation: Confirmation) -> None:
    """Record the confirmed address of the event, or the reason why it is not confirmed."""
    claims.hold(session, claim)
    event = session.get_one(ChangeEvent, event_id)
    event.url = confirmation.url
    document = None if event.document_id is None else session.get(Document, event.document_id)
    if document is None or document.url is None or urls.canonical(document.url) != urls.canonical(event.url):
        # The notification, or the watch by now, names another page than the document that was assumed.
        event.document_id = known_id(session, About(url=event.url), tenant=claim.tenant)
    doubt = {} if confirmation.doubt is None else {"unconfirmed": clean_line(confirmation.doubt, 500)}
    extra = {name: value for name, value in event.extra.items() if name != "unconfirmed"}
    event.extra = extra | {"confirmed": confirmation.doubt is None} | doubt


def find_tenant(session: Session, watch_id: str | None) -> str | None:
    """Return the tenant of the watched page, or None if the watch was not made here."""
    if watch_id is None:
        return None
    return session.scalar(sa.select(PageWatch.tenant).where(PageWatch.watch_id == watch_id).limit(1))


def record_end(session: Session, job: JobRow) -> None:
    """Record the job's end in its event, in the transaction that ends the job."""
    note_end(session, job)
    row = session.get(ChangeEvent, int(job.payload["event_id"]))
    if row is None or row.job_id != job.id:
        return
    result = job.result or {}
    row.state = str(result.get("status", "indexed")) if job.state == "succeeded" else job.state
    row.error_message = job.error_message
    row.ended_at = clock.now()
    if result.get("version_id"):
        row.version_id = int(result["version_id"])


def get(session: Session, tenant: str, event_id: int) -> ChangeEvent:
    """Return the tenant's event. Raises NotFound."""
    query = sa.select(ChangeEvent).where(ChangeEvent.tenant == tenant, ChangeEvent.id == event_id)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound("Change event not found", code="change_not_found")
    return row


def list_events(session: Session, tenant: str, filters: ChangeFilter, limit: int) -> list[ChangeEvent]:
    """Return the tenant's events, newest first."""
    query = sa.select(ChangeEvent).where(ChangeEvent.tenant == tenant)
    for name in ("state", "watch_id", "url", "document_id"):
        value = getattr(filters, name)
        query = query if value is None else query.where(getattr(ChangeEvent, name) == value)
    if filters.before_id is not None:
        query = query.where(ChangeEvent.id < filters.before_id)
    return list(session.scalars(query.order_by(ChangeEvent.id.desc()).limit(limit)))


def describe(row: ChangeEvent) -> dict[str, Any]:
    """Return the event as JSON."""
    return {
        "id": str(row.id),
        "origin": row.origin,
        "state": row.state,
        "url": row.url,
        "document_id": None if row.document_id is None else str(row.document_id),
        "content_id": None if row.version_id is None else str(row.version_id),
        "watch_id": row.watch_id,
        "history_key": None if row.history_key is None else str(row.history_key),
        "title": row.title,
        "summary": row.summary,
        "diff_url": row.diff_url,
        "job_id": row.job_id,
        "error": row.error_message,
        "confirmed": row.extra.get("confirmed"),
        "metadata": row.extra,
        "detected_at": moment(row.detected_at),
        "received_at": moment(row.received_at),
        "ended_at": moment(row.ended_at),
    }
