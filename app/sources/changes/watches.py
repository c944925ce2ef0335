"""Rows of page watches: watches to create at changedetection.io, existing ones, and those to delete."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.clock import moment
from app.core.errors import InvalidInput, NotFound
from app.core.settings import get_settings
from app.documents.models import Document
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.schedules.store import DEFAULT_TENANT
from app.sources.models import ChangeEvent, PageWatch

PLAN_BATCH = 1000
# A refused watch is tried again after this time, since the page may have a new URL.
RETRY_FAILED_AFTER = timedelta(days=1)
# How far the clock of changedetection.io may be ahead of ours.
MAX_CLOCK_SKEW_S = 86_400


def want(session: Session, document: Document) -> PageWatch:
    """Request a watch for the page, whatever its source. Raises InvalidInput for a document without a URL."""
    if document.url is None:
        raise InvalidInput("the document has no url, so it cannot be watched", code="no_url")
    session.execute(_insert(session).values([_row(document.tenant, document.id, document.url)]))
    row = session.scalars(sa.select(PageWatch).where(PageWatch.document_id == document.id).with_for_update()).one()
    if row.state != "present":
        row.state, row.error_message, row.updated_at = "wanted", None, clock.now()
    return row


def unwant(session: Session, tenant: str, document_id: int) -> PageWatch:
    """Stop watching the page; it is not watched again automatically. Raises NotFound if it is not watched."""
    query = sa.select(PageWatch).where(PageWatch.tenant == tenant, PageWatch.document_id == document_id)
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is None or row.state == "removed":
        raise NotFound("the page is not watched", code="watch_not_found")
    row.state, row.updated_at = "unwanted" if row.watch_id or row.is_ours else "removed", clock.now()
    return row


def plan(session: Session, claim: Claim) -> int:
    """Mark pages that lack a watch and watches that lack their page; return the number of both."""
    claims.hold(session, claim)
    now = clock.now()
    conditions = _tenant_conditions(claim.tenant)
    is_orphan = ~sa.exists().where(Document.id == PageWatch.document_id)
    sql.row_count(session, sa.delete(PageWatch).where(*conditions, is_orphan, PageWatch.state == "removed"))
    unwanted = sa.update(PageWatch).where(*conditions, is_orphan, PageWatch.state.in_(("wanted", "present", "failed")))
    marked = sql.row_count(session, unwanted.values(state="unwanted", updated_at=now))
    stale = sa.and_(PageWatch.state == "failed", PageWatch.updated_at < now - RETRY_FAILED_AFTER)
    session.execute(sa.update(PageWatch).where(*conditions, stale).values(state="wanted"))
    return marked + _plan_new(session, claim.tenant, get_settings().auto_watch)


def _plan_new(session: Session, tenant: str, sources: Collection[str]) -> int:
    if not sources:
        return 0
    lacking = sa.select(Document.tenant, Document.id, Document.url).where(
        *([] if tenant == DEFAULT_TENANT else [Document.tenant == tenant]),
        *([] if "all" in sources else [Document.source.in_(sources)]),
        Document.version_id.is_not(None),
        Document.url.is_not(None),
        ~sa.exists().where(PageWatch.document_id == Document.id),
    )
    rows = session.execute(lacking.order_by(Document.id).limit(PLAN_BATCH)).all()
    if rows:
        session.execute(
            _insert(session).values([_row(owner, document_id, str(url)) for owner, document_id, url in rows])
        )
    return len(rows)


def list_pending(session: Session, tenant: str, after: int, limit: int) -> Sequence[PageWatch]:
    """Return rows whose watch is to be created or deleted, by id."""
    query = sa.select(PageWatch).where(
        *_tenant_conditions(tenant), PageWatch.id > after, PageWatch.state.in_(("wanted", "unwanted"))
    )
    return session.scalars(query.order_by(PageWatch.id).limit(limit)).all()


def mark_creating(session: Session, claim: Claim, row_id: int) -> bool:
    """Record that a watch may exist from now on, even if its id is never stored; False if none is wanted."""
    claims.hold(session, claim)
    statement = sa.update(PageWatch).where(PageWatch.id == row_id, PageWatch.state == "wanted")
    return sql.row_count(session, statement.values(is_ours=True, updated_at=clock.now())) > 0


def record_created(session: Session, claim: Claim, row_id: int, watch_id: str, *, is_ours: bool) -> None:
    """Record the watch as present, or as unwanted if a caller unwatched the page during its creation."""
    claims.hold(session, claim)
    values = {"watch_id": watch_id, "is_ours": is_ours, "error_message": None, "updated_at": clock.now()}
    row = sa.update(PageWatch).where(PageWatch.id == row_id)
    session.execute(row.values(values))
    session.execute(row.where(PageWatch.state == "wanted").values(state="present"))
    session.execute(row.where(PageWatch.state == "removed").values(state="unwanted"))


def record_removed(session: Session, claim: Claim, row_id: int) -> None:
    """Delete the row if the page is gone; otherwise keep it, so that the watch is not created again automatically."""
    claims.hold(session, claim)
    row = session.get(PageWatch, row_id)
    if row is None or row.state != "unwanted":
        return
    if session.get(Document, row.document_id) is None:
        session.delete(row)
    else:
        row.state, row.watch_id, row.is_ours, row.updated_at = "removed", None, False, clock.now()


def record_failed(session: Session, claim: Claim, row_id: int, why: str) -> None:
    claims.hold(session, claim)
    values = {"state": "failed", "is_ours": False, "error_message": why, "updated_at": clock.now()}
    row = sa.update(PageWatch).where(PageWatch.id == row_id, PageWatch.state == "wanted")
    session.execute(row.values(values))


def find_taken(session: Session, watch_ids: Collection[str], document_id: int) -> set[str]:
    """Return those of the watches that belong to other pages."""
    query = sa.select(PageWatch.watch_id).where(
        PageWatch.watch_id.in_(watch_ids), PageWatch.document_id != document_id, PageWatch.watch_id.is_not(None)
    )
    return {str(watch_id) for watch_id in session.scalars(query)}


def find_present(session: Session, tenant: str) -> dict[str, tuple[PageWatch, int]]:
    """Return the watches by id, each with the key of the last snapshot known here."""
    known = sa.select(ChangeEvent.watch_id, sa.func.max(ChangeEvent.history_key)).where(
        ChangeEvent.watch_id.in_(
            sa.select(PageWatch.watch_id).where(*_tenant_conditions(tenant), PageWatch.state == "present")
        ),
        # A notification with a time in the future must not hide the changes until then.
        ChangeEvent.history_key < int(clock.now().timestamp()) + MAX_CLOCK_SKEW_S,
    )
    keys = {row[0]: row[1] for row in session.execute(known.group_by(ChangeEvent.watch_id))}
    rows = session.scalars(sa.select(PageWatch).where(*_tenant_conditions(tenant), PageWatch.state == "present"))
    return {str(row.watch_id): (row, keys.get(row.watch_id) or int(row.created_at.timestamp())) for row in rows}


def list_watches(
    session: Session, tenant: str, *, state: str | None, url: str | None, before_id: int | None, limit: int
) -> list[PageWatch]:
    """Return the tenant's watches, newest first."""
    query = sa.select(PageWatch).where(PageWatch.tenant == tenant)
    query = query if state is None else query.where(PageWatch.state == state)
    query = query if url is None else query.where(PageWatch.url == url)
    query = query if before_id is None else query.where(PageWatch.id < before_id)
    return list(session.scalars(query.order_by(PageWatch.id.desc()).limit(limit)))


def describe(row: PageWatch) -> dict[str, Any]:
    """Return the watch as JSON."""
    return {
        "document_id": str(row.document_id),
        "url": row.url,
        "state": row.state,
        "watch_id": row.watch_id,
        "is_ours": row.is_ours,
        "error": row.error_message,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


def _tenant_conditions(tenant: str) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on a tenant's watches; jobs of the default tenant handle all."""
    return [] if tenant == DEFAULT_TENANT else [PageWatch.tenant == tenant]


def _row(tenant: str, document_id: int, url: str) -> dict[str, Any]:
    now = clock.now()
    return {
        "tenant": tenant, "document_id": document_id, "url": url, "state": "wanted", "is_ours": False,
        "created_at": now, "updated_at": now,
    }  # fmt: skip


def _insert(session: Session) -> Any:
    """Return an insert that skips pages that have a row."""
    return sql.insert(sql.dialect_of(session), PageWatch).on_conflict_do_nothing(index_elements=["document_id"])
