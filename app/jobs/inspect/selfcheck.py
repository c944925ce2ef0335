"""What should not be in the ledger, found and mended. Each of these has a keeper; this tells when one has failed.

Looking is a read, which may take its time and hinders nobody; mending is a short transaction that looks once more and
makes the move which should have been made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from app.core import clock, sql
from app.jobs.ledger import claims, timers, worker_rows
from app.jobs.ledger.claims import Moved
from app.jobs.models import DebouncedRow, JobRow, ScheduleRow
from app.jobs.schedules import store
from app.jobs.states import ENDED, OPEN

BATCH = 500
# What a relay does within a second, nobody has done for so long.
OVERDUE = timedelta(minutes=10)

Find = Callable[[Session], list[Any]]
Mend = Callable[[Session, Sequence[Any]], list[Moved]]


@dataclass(frozen=True, slots=True)
class Check:
    """`find` gives up to BATCH ids; `mend` the moves that it made, to be told after the commit.

    None: told to people, for no move leads out of it.
    """

    find: Find
    mend: Mend | None


def _jobs(*conditions: Callable[[], sa.ColumnElement[bool]]) -> Find:
    def find(session: Session) -> list[Any]:
        query = sa.select(JobRow.id).where(*(condition() for condition in conditions))
        return list(session.scalars(query.order_by(JobRow.id).limit(BATCH)))

    return find


def _set(condition: Callable[[], sa.ColumnElement[bool]], **values: Callable[[], object]) -> Mend:
    """Write these values where the condition still holds."""

    def mend(session: Session, ids: Sequence[Any]) -> list[Moved]:
        session.execute(sa.select(JobRow.id).where(JobRow.id.in_(ids)).order_by(JobRow.id).with_for_update())
        made = {name: value() for name, value in values.items()}
        sql.row_count(session, sa.update(JobRow).where(JobRow.id.in_(ids), condition()).values(made))
        return []

    return mend


def _free(session: Session, worker_ids: Sequence[Any]) -> list[Moved]:
    moved = []
    for worker_id in worker_rows.strays(session):
        if worker_id in worker_ids:
            moved += claims.free(session, worker_id, "worker gone")
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
    gone = [job_id for job_id in ids if job_id in still]
    sql.row_count(session, sa.delete(DebouncedRow).where(DebouncedRow.job_id.in_(gone)))
    return []


def _unplanned(session: Session) -> list[Any]:
    """But for those that never come again."""
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


def _waiting_in_vain() -> sa.ColumnElement[bool]:
    return sa.and_(JobRow.state == "waiting", JobRow.open_children > 0, _children(*OPEN) == 0)


CHECKS: dict[str, Check] = {
    # A claim that crossed its worker's death: freed, as a relay does.
    "workers_gone_with_running_jobs": Check(worker_rows.strays, _free),
    "running_without_worker": Check(_jobs(lambda: JobRow.state == "running", lambda: JobRow.worker_id.is_(None)), None),
    # Retention would keep it for ever.
    "ended_without_time": Check(_jobs(_without_end), _set(_without_end, finished_at=clock.now)),
    "open_with_time_of_end": Check(_jobs(_with_end), _set(_with_end, finished_at=sa.null)),
    # Once it is queued nobody would feed it.
    "admitted_but_not_queued": Check(_jobs(_unfit), _set(_unfit, admitted_at=sa.null)),
    # A parent that counts children as open which have ended would wait for ever; a relay settles it then.
    "waiting_for_no_child": Check(
        _jobs(_waiting_in_vain),
        _set(
            _waiting_in_vain,
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
