"""Moves of a job that no worker makes: people ask for them, or their time has come. The rest is in `ledger`."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import Conflict, NotFound
from app.core.ids import is_uuid
from app.jobs.definition import definition
from app.jobs.ledger import child_counts, end_webhooks, unique
from app.jobs.ledger.claims import MOVED, Moved, call_on_end_of
from app.jobs.models import JOB, JobRow
from app.jobs.states import NOT_STARTED


def _find(session: Session, tenant: str, job_id: str) -> JobRow:
    row = None
    if is_uuid(job_id):
        child_counts.lock(session, [job_id])
        statement = sa.select(JobRow).where(JobRow.id == job_id, JobRow.tenant == tenant).with_for_update()
        row = session.execute(statement, execution_options={"populate_existing": True}).scalar_one_or_none()
    if row is None:
        raise NotFound(f"Job {job_id} not found", code="job_not_found")
    return row


def cancel(session: Session, tenant: str, job_id: str) -> JobRow:
    """Ask the job to stop: what has not started never will, what runs is told. Ended jobs stay as they are."""
    row = _find(session, tenant, job_id)
    if row.state in NOT_STARTED:
        row.state, row.finished_at, row.cancel_requested_at = "cancelled", clock.now(), clock.now()
        row.admitted_at, row.cut_children = None, row.open_children > 0
        session.flush()
        child_counts.count(session, [_moved(row)])
        end_webhooks.tell_ends(session, [_moved(row)])
        kind = definition(row.kind)
        if kind is not None and kind.on_end is not None:
            kind.on_end(session, row)
    elif row.state == "running" and row.cancel_requested_at is None:
        row.cancel_requested_at = clock.now()
    session.flush()
    return row


def retry(session: Session, tenant: str, job_id: str) -> JobRow:
    """A person's retry of a job that failed or was cancelled: queued again, its tries counted from 0.

    Raises Conflict in every other state, and while another job with its unique key is open.
    """
    row = _find(session, tenant, job_id)
    if row.state not in ("failed", "cancelled"):
        raise Conflict(f"Job {job_id} is {row.state}; only a failed or cancelled job can be retried", code="job_state")
    for name, value in child_counts.as_new().items():
        setattr(row, name, value)
    row.family_rule = child_counts.AGAIN if row.children else None
    key = row.unique_key
    try:
        session.flush()
    except sa.exc.IntegrityError as error:
        raise Conflict(f"Another job with the key {key} is open", code="unique_key") from error
    if unique.take_newer(session, [job_id]):  # it ended by force while a newer payload waited for its end
        session.refresh(row)
    if row.parent_id is not None:
        child_counts.uncount(session, row.parent_id, 1)
    return row


def _moved(row: JobRow) -> Moved:
    return Moved(*(getattr(row, name) for name in MOVED.split(", ")))


def something_due(session: Session) -> bool:
    due = sa.select(JobRow.id).where(JobRow.state.in_(("scheduled", "retrying")), JobRow.due_at <= clock.now())
    return session.scalar(due.limit(1)) is not None


def something_expired(session: Session) -> bool:
    expired = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.expires_at <= clock.now())
    return session.scalar(expired.limit(1)) is not None


def make_due(session: Session, limit: int) -> int:
    """scheduled, retrying → queued for what is due. How many moved."""
    moving = (
        sa.select(JobRow.id)
        .where(JobRow.state.in_(("scheduled", "retrying")), JobRow.due_at <= clock.now())
        .order_by(JobRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("moving")  # a subquery's LIMIT may limit nothing (see admission)
    )
    update = sa.update(JOB).where(JOB.c.id.in_(sa.select(moving.c.id))).values(state="queued", admitted_at=None)
    return len(session.execute(update.returning(JOB.c.id)).all())


def expire(session: Session, limit: int) -> list[Moved]:
    """queued → failed for what should not start any more."""
    now = clock.now()
    expired = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.expires_at <= now).order_by(JobRow.id)
    child_counts.lock(session, expired.where(JobRow.parent_id.is_not(None)).limit(limit))
    moving = (
        expired.limit(limit)
        .with_for_update(skip_locked=True)
        .cte("moving")  # a subquery's LIMIT may limit nothing (see admission)
    )
    values = {"state": "failed", "finished_at": now, "admitted_at": None}
    values["cut_children"] = JOB.c.open_children > 0
    values |= {"error_type": "Expired", "error_code": "expired", "error_message": "not started before expires_at"}
    values["fingerprint"] = "expired"
    columns = [JOB.c[name] for name in (MOVED + ", kind").split(", ")]
    update = sa.update(JOB).where(JOB.c.id.in_(sa.select(moving.c.id))).values(values)
    found = session.execute(update.returning(*columns)).mappings().all()
    moved = [Moved(**{name: row[name] for name in MOVED.split(", ")}) for row in found]
    child_counts.count(session, moved)
    call_on_end_of(session, moved, {row["id"]: row["kind"] for row in found}, apart=True)
    return moved
