"""Moves of jobs whose time has come: due jobs are queued, expired ones fail."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.jobs.ledger import child_counts
from app.jobs.ledger.after_moves import after_returned_moves
from app.jobs.models import JOB, JobRow
from app.jobs.transition import Moved, moved_columns


def has_due(session: Session) -> bool:
    due = sa.select(JobRow.id).where(JobRow.state.in_(("scheduled", "retrying")), JobRow.due_at <= clock.now())
    return session.scalar(due.limit(1)) is not None


def has_expired(session: Session) -> bool:
    expired = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.expires_at <= clock.now())
    return session.scalar(expired.limit(1)) is not None


def make_due(session: Session, limit: int) -> int:
    """Move up to `limit` scheduled and retrying jobs that are due to queued; return how many moved."""
    moving = (
        sa.select(JobRow.id)
        .where(JobRow.state.in_(("scheduled", "retrying")), JobRow.due_at <= clock.now())
        .order_by(JobRow.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("moving")  # in a subquery LIMIT may limit nothing (see admissions)
    )
    update = sa.update(JOB).where(JOB.c.id.in_(sa.select(moving.c.id))).values(state="queued", admitted_at=None)
    return len(session.execute(update.returning(JOB.c.id)).all())


def expire(session: Session, limit: int) -> list[Moved]:
    """Move up to `limit` queued jobs past their expires_at to failed; return the moves."""
    now = clock.now()
    expired = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.expires_at <= now).order_by(JobRow.id)
    child_counts.lock(session, expired.where(JobRow.parent_id.is_not(None)).limit(limit))
    moving = expired.limit(limit).with_for_update(skip_locked=True).cte("moving")  # as in make_due
    values = {"state": "failed", "finished_at": now, "admitted_at": None}
    values["cut_children"] = JOB.c.open_children > 0
    values |= {"error_type": "Expired", "error_code": "expired", "error_message": "not started before expires_at"}
    values["fingerprint"] = "expired"
    update = sa.update(JOB).where(JOB.c.id.in_(sa.select(moving.c.id))).values(values)
    return after_returned_moves(session, session.execute(update.returning(*moved_columns())).all())
