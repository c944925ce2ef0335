"""Writes of children and their parents: adopt, restart, settle a parent whose children ended, cancel children."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.jobs.admission import admit, push
from app.jobs.child_rules import AGAIN
from app.jobs.ledger import child_counts
from app.jobs.ledger.after_moves import after_returned_moves
from app.jobs.models import JOB, JobRow
from app.jobs.states import NOT_STARTED, OPEN
from app.jobs.transition import MOVED_AND_KIND, Moved, moved_columns, typed

MAX_CANCELS = 500
MAX_PARENTS = 100

_ADOPTED = {"key_id": "id", "number": "int"}


def adopt(session: Session, parent_id: str, children: Sequence[tuple[str, int]]) -> None:
    """Make new jobs of this transaction children of the parent: pairs of job id and number."""
    dialect = sql.dialect_of(session)
    rows = [{"key_id": job_id, "number": number} for job_id, number in children]
    # SQLite refuses a parameter that the statement does not name.
    ids = {"ids": sql.ids(dialect, [job_id for job_id, _ in children])} if dialect == "postgresql" else {}
    session.execute(
        sa.text(
            f"UPDATE job SET parent_id = {sql.id_cast(dialect, 'parent')}, child_index = number "
            f"FROM {sql.rows(dialect, _ADOPTED)} WHERE {sql.joined_on_id(dialect)}"
        ),
        {"rows": sql.encode_rows(dialect, rows), "parent": parent_id, **ids},
    )
    more = {"children": JOB.c.children + len(children), "open_children": JOB.c.open_children + len(children)}
    session.execute(sa.update(JOB).where(JOB.c.id == parent_id).values(more))


def restart_values() -> dict[str, Any]:
    """Return the column values of a failed or cancelled job that is queued again as if it had never run."""
    cleared = ("admitted_at", "discarded_at", "finished_at", "cancel_requested_at", "expires_at", "result")
    errors = ("error_type", "error_code", "error_message", "fingerprint")
    counts = {"settled_children": 0, "settled_failed": 0, "cut_children": False, "family_limit": None}
    rule = sa.case((JOB.c.children > 0, AGAIN), else_=sa.null())
    values = {"state": "queued", "tries": 0, "crashes": 0, "due_at": clock.now(), "family_rule": rule}
    return values | counts | dict.fromkeys((*cleared, *errors))


def restart(session: Session, parent_id: str, ids: Sequence[str]) -> None:
    """Queue these failed children again, except those whose unique key another open job has."""
    if not ids:
        return
    other = JOB.alias("other")
    is_taken = sa.exists().where(
        other.c.tenant == JOB.c.tenant,
        other.c.kind == JOB.c.kind,
        other.c.unique_key == JOB.c.unique_key,
        other.c.state.in_(OPEN),
    )
    again = sa.update(JOB).where(JOB.c.id.in_(ids), JOB.c.state.in_(("failed", "cancelled")), ~is_taken)
    child_counts.lock(session, ids)
    reopened = session.execute(again.values(restart_values()).returning(JOB.c.id)).all()
    if reopened:
        child_counts.uncount(session, parent_id, len(reopened))
        push.wake_relay_after_commit(session)


def settle(session: Session, limit: int = MAX_PARENTS) -> list[Moved]:
    """Move parents whose children have ended: to queued if their rule is fulfilled, else to failed."""
    dialect = sql.dialect_of(session)
    ready = sa.select(JobRow.id).where(JobRow.state == "waiting", JobRow.open_children == 0)
    ids = child_counts.lock(session, ready.order_by(JobRow.id).limit(limit))
    if not ids:
        return []
    rows = session.execute(_settle_sql(dialect), {"ids": sql.ids(dialect, ids), "now": clock.now()}).all()
    moved = after_returned_moves(session, rows)
    _admit(session, [move.id for move in moved if move.state == "queued"])
    return moved


def _admit(session: Session, ids: Sequence[str]) -> None:
    """Admit these parents now where there is room; relays admit the others in their turn."""
    for row in session.scalars(sa.select(JobRow).where(JobRow.id.in_(ids)).order_by(JobRow.id)) if ids else ():
        room, promoted = admit.room_for(session, row.queue, row.kind, row.tenant, 1, row.priority)
        if room:
            row.admitted_at = clock.now()
            admit.push_after_commit(session, [row], promoted=promoted)


@lru_cache
def _settle_sql(dialect: str) -> sa.TextualSelect:
    fulfilled = child_counts.fulfilled()
    counted = "(failed_children - settled_failed) || ' of ' || (children - settled_children)"
    return typed(
        f"""
        UPDATE job SET state = CASE WHEN {fulfilled} THEN 'queued' ELSE 'failed' END, admitted_at = NULL,
               due_at = CASE WHEN {fulfilled} THEN :now ELSE due_at END,
               finished_at = CASE WHEN {fulfilled} THEN NULL ELSE :now END,
               settled_children = CASE WHEN {fulfilled} THEN children ELSE settled_children END,
               settled_failed = CASE WHEN {fulfilled} THEN failed_children ELSE settled_failed END,
               error_type = CASE WHEN {fulfilled} THEN NULL ELSE 'ChildrenFailed' END,
               error_code = CASE WHEN {fulfilled} THEN NULL ELSE 'children_failed' END,
               error_message = CASE WHEN NOT {fulfilled}
                   THEN {counted} || ' children failed; the rule was ' || family_rule END,
               fingerprint = CASE WHEN {fulfilled} THEN NULL ELSE 'children_failed' END, cut_children = false
        WHERE id {sql.among(dialect)} AND state = 'waiting' AND open_children = 0
        RETURNING {MOVED_AND_KIND}""",
        MOVED_AND_KIND,
        "now",
    )


class CancelledChildren(NamedTuple):
    """Moves of cancelled children, ids of running ones that were asked to stop, and whether more are left."""

    moved: list[Moved]
    asked: list[str]
    more: bool


def cancel_children(session: Session, limit: int = MAX_CANCELS) -> CancelledChildren:
    """Cancel open children of parents that ended without success or whose rule has decided.

    Called until none are left.
    """
    flagged = sa.select(JobRow.id).where(JobRow.cut_children).order_by(JobRow.id).limit(MAX_PARENTS)
    parents = list(session.scalars(flagged.with_for_update(skip_locked=True)))
    if not parents:
        return CancelledChildren([], [], more=False)
    is_open = (JobRow.parent_id.in_(parents), JobRow.state.in_(OPEN), JobRow.cancel_requested_at.is_(None))
    ids = child_counts.lock(session, sa.select(JobRow.id).where(*is_open).order_by(JobRow.id).limit(limit))
    moved, asked = _cancel(session, ids) if ids else ([], [])
    if len(ids) < limit:
        session.execute(sa.update(JOB).where(JOB.c.id.in_(parents)).values(cut_children=False))
    return CancelledChildren(moved, asked, more=len(ids) == limit or bool(moved))


def _cancel(session: Session, ids: Sequence[str]) -> tuple[list[Moved], list[str]]:
    now, chosen = clock.now(), JOB.c.id.in_(ids)
    values: dict[str, Any] = {
        "state": "cancelled",
        "finished_at": now,
        "cancel_requested_at": now,
        "admitted_at": None,
        "cut_children": JOB.c.open_children > 0,
    }
    never_start = sa.update(JOB).where(chosen, JOB.c.state.in_(NOT_STARTED)).values(values)
    rows = session.execute(never_start.returning(*moved_columns())).all()
    running = sa.update(JOB).where(chosen, JOB.c.state == "running", JOB.c.cancel_requested_at.is_(None))
    asked = list(session.scalars(running.values(cancel_requested_at=now).returning(JOB.c.id)))
    return after_returned_moves(session, rows), asked
