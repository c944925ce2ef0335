"""Consistency checks of the ledger, and repairs. A finding means that the code which prevents it has failed.

A check is a read and blocks nothing. A repair is a short transaction that checks again and makes the missing move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from app.core import clock, sql
from app.jobs.ledger import ends, repairs, timers, workers
from app.jobs.models import DebouncedRow, JobRow, ScheduleRow
from app.jobs.schedules import store
from app.jobs.states import ENDED, OPEN
from app.jobs.transition import Moved

BATCH = 500
# A relay does this within a second; after this time it is overdue.
OVERDUE = timedelta(minutes=10)

Find = Callable[[Session], list[Any]]
Repair = Callable[[Session, Sequence[Any]], list[Moved]]


@dataclass(frozen=True, slots=True)
class Check:
    """`find` returns up to BATCH ids; `repair` returns its moves, to be published after the commit.

    Without a repair the finding is only reported, because no move leads out of it.
    """

    find: Find
    repair: Repair | None


def _jobs(*conditions: Callable[[], sa.ColumnElement[bool]]) -> Find:
    def find(session: Session) -> list[Any]:
        query = sa.select(JobRow.id).where(*(condition() for condition in conditions))
        return list(session.scalars(query.order_by(JobRow.id).limit(BATCH)))

    return find


def _set(condition: Callable[[], sa.ColumnElement[bool]], **values: Callable[[], object]) -> Repair:
    """Return a repair that writes these values where the condition still holds."""

    def repair(session: Session, ids: Sequence[Any]) -> list[Moved]:
        repairs.set_values(session, ids, condition(), {name: value() for name, value in values.items()})
        return []

    return repair


def _free(session: Session, worker_ids: Sequence[Any]) -> list[Moved]:
    moved = []
    for worker_id in workers.list_orphans(session):
        if worker_id in worker_ids:
            moved += ends.free(session, worker_id, "worker gone")
    return moved


def _make_due(session: Session, ids: Sequence[Any]) -> list[Moved]:
    timers.make_due(session, BATCH)
    return []


def _expire(session: Session, ids: Sequence[Any]) -> list[Moved]:
    return timers.expire(session, BATCH)


def _debounced(session: Session) -> list[Any]:
    ended = sa.select(JobRow.id).where(JobRow.id == DebouncedRow.job_id, JobRow.state.in_(ENDED))
    return list(session.scalars(sa.select(DebouncedRow.job_id).where(sa.exists(ended)).limit(BATCH)))


def _drop_debounced(session: Session, ids: Sequence[Any]) -> list[Moved]:
    still = _debounced(session)
    leftover = [job_id for job_id in ids if job_id in still]
    sql.row_count(session, sa.delete(DebouncedRow).where(DebouncedRow.job_id.in_(leftover)))
    return []


def _unplanned(session: Session) -> list[Any]:
    """Find schedules without a next time, except those that never fire again."""
    rows = session.scalars(
        sa.select(ScheduleRow).where(ScheduleRow.paused_at.is_(None), ScheduleRow.next_at.is_(None)).limit(BATCH)
    )
    return [row.id for row in rows if store.timing(row).after(clock.now())]


def _plan(session: Session, ids: Sequence[Any]) -> list[Moved]:
    query = sa.select(ScheduleRow).where(ScheduleRow.id.in_(ids), ScheduleRow.paused_at.is_(None))
    for row in session.scalars(query.order_by(ScheduleRow.id).with_for_update()):
        store.plan_next(row, clock.now())
    return []


def _without_end() -> sa.ColumnElement[bool]:
    return sa.and_(JobRow.state.in_(ENDED), JobRow.finished_at.is_(None))


def _with_end() -> sa.ColumnElement[bool]:
    return sa.and_(JobRow.state.not_in(ENDED), JobRow.finished_at.is_not(None))


def _unfit() -> sa.ColumnElement[bool]:
    return sa.and_(JobRow.state.in_(("scheduled", "retrying", "waiting")), JobRow.admitted_at.is_not(None))


def _children(*states: str) -> sa.ScalarSelect[int]:
    child = aliased(JobRow)
    return (
        sa.select(sa.func.count())
        .select_from(child)
        .where(child.parent_id == JobRow.id, child.state.in_(states))
        .correlate(JobRow)
        .scalar_subquery()
    )


def _waits_for_no_child() -> sa.ColumnElement[bool]:
    return sa.and_(JobRow.state == "waiting", JobRow.open_children > 0, _children(*OPEN) == 0)


CHECKS: dict[str, Check] = {
    # A claim that crossed its worker's death: freed, as a relay does.
    "workers_gone_with_running_jobs": Check(workers.list_orphans, _free),
    "running_without_worker": Check(_jobs(lambda: JobRow.state == "running", lambda: JobRow.worker_id.is_(None)), None),
    # Retention would never delete it.
    "ended_without_time": Check(_jobs(_without_end), _set(_without_end, finished_at=clock.now)),
    "open_with_time_of_end": Check(_jobs(_with_end), _set(_with_end, finished_at=sa.null)),
    # Once it is queued, no relay would admit it.
    "admitted_but_not_queued": Check(_jobs(_unfit), _set(_unfit, admitted_at=sa.null)),
    # A parent that counts ended children as open would wait for ever; after the repair a relay settles it.
    "waiting_for_no_child": Check(
        _jobs(_waits_for_no_child),
        _set(
            _waits_for_no_child,
            open_children=lambda: 0,
            failed_children=lambda: _children("failed", "cancelled"),
        ),
    ),
    "due_for_long": Check(
        _jobs(
            lambda: JobRow.state.in_(("scheduled", "retrying")),
            lambda: JobRow.due_at < clock.now() - OVERDUE,
        ),
        _make_due,
    ),
    "expired_for_long": Check(
        _jobs(lambda: JobRow.state == "queued", lambda: JobRow.expires_at < clock.now() - OVERDUE), _expire
    ),
    "debounced_for_ended_jobs": Check(_debounced, _drop_debounced),
    "schedules_without_plan": Check(_unplanned, _plan),
}
