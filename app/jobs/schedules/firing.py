"""Fire schedules: start the job of each due tick exactly once, with any number of schedulers and any clock.

A scheduler holds the lock of a schedule's row while it works on it. The outcome of a tick is a row, written once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime
from app.core.errors import AppError, LimitReached
from app.core.logging import get_logger
from app.jobs.admission import quota
from app.jobs.definition import Job, definition
from app.jobs.ledger import commands
from app.jobs.ledger.enqueue import enqueue_many, mark_scheduled
from app.jobs.models import ScheduleRow, ScheduleTickRow
from app.jobs.schedules.cron import TickTimes
from app.jobs.states import OPEN

CatchUp = Literal["skip", "once", "all"]
Overlap = Literal["skip", "queue", "replace"]
Outcome = Literal["started", "waiting", "skipped", "missed", "failed"]

# A tick read later than this was missed; the scheduler looks once a minute.
ON_TIME = timedelta(seconds=90)
# A plan made this far in the future came from a clock that was set back since, or that is ahead of ours.
JUMP = timedelta(seconds=60)
MAX_WAITING = 100
BATCH = 250

_OPEN_STATES = ", ".join(f"'{state}'" for state in OPEN)
_COLUMNS = (
    "id, tenant, name, kind, payload_version, payload, cron, every_s, timezone, anchor_at, catch_up, catch_up_limit, "
    "overlap, next_at, in_code"
)

log = get_logger(__name__)


class Planned(NamedTuple):
    """A due schedule, locked. The fields are in the order of _COLUMNS."""

    id: int
    tenant: str
    name: str
    kind: str
    payload_version: int
    payload: dict[str, Any]
    cron: str | None
    every_s: int | None
    timezone: str
    anchor_at: datetime
    catch_up: CatchUp
    catch_up_limit: int
    overlap: Overlap
    next_at: datetime | None
    in_code: bool

    @property
    def timing(self) -> TickTimes:
        return TickTimes(self.cron, self.every_s, self.timezone, self.anchor_at)


@dataclass(slots=True)
class Tick:
    """One tick and its outcome."""

    schedule: Planned
    at: datetime
    outcome: Outcome
    note: str | None = None
    job_id: str | None = None
    # False if a job with the same unique key was open.
    is_new: bool = False


@dataclass(slots=True)
class _Existing:
    """Written ticks, open jobs and counts of waiting ticks of the locked schedules."""

    ticks: set[tuple[int, datetime]] = field(default_factory=set)
    jobs: dict[int, list[str]] = field(default_factory=dict)
    waiting: Counter[int] = field(default_factory=Counter)


class Fired(NamedTuple):
    """Number of due schedules, and counts of tick outcomes. If it equals `limit`, there may be more."""

    schedules: int
    ticks: Counter[str]


def fire(session: Session, tick_at: datetime, limit: int = BATCH) -> Fired:
    """Start jobs for the ticks due at that time, of up to `limit` schedules, in this transaction.

    The schedule decides which ticks start a job: catch_up for missed ticks, overlap for ticks that come while a job of
    an earlier one is open.
    """
    due = _lock(session, sa.and_(ScheduleRow.paused_at.is_(None), ScheduleRow.next_at <= tick_at), limit)
    if not due:
        return Fired(0, Counter())
    existing = _read_existing(session, due, min(planned.next_at for planned in due if planned.next_at))
    ticks: list[Tick] = []
    plans: list[dict[str, Any]] = []
    for planned in due:
        assert planned.next_at is not None
        selected, upcoming = _select_ticks(planned, planned.next_at, tick_at)
        new = [tick for tick in selected if (planned.id, tick.at) not in existing.ticks]
        for tick in new:
            _apply_overlap(session, tick, existing)
        ticks += new
        last = max((tick.at for tick in selected), default=None)
        plans.append({"key": planned.id, "new_next": upcoming, "new_planned": tick_at, "new_last": last})
    _start(session, [tick for tick in ticks if tick.outcome == "started"])
    _write_ticks(session, ticks, tick_at)
    _write_plans(session, plans)
    return Fired(len(due), Counter(tick.outcome for tick in ticks))


def _lock(session: Session, condition: sa.ColumnElement[bool], limit: int) -> list[Planned]:
    """Lock and return schedules; those that another scheduler has locked are skipped."""
    columns = (getattr(ScheduleRow, name) for name in _COLUMNS.split(", "))
    query = sa.select(*columns).where(condition).order_by(ScheduleRow.next_at, ScheduleRow.id).limit(limit)
    return [Planned(*row) for row in session.execute(query.with_for_update(skip_locked=True))]


def _read_existing(session: Session, schedules: Sequence[Planned], since: datetime) -> _Existing:
    ids = [planned.id for planned in schedules]
    existing = _Existing()
    of_ours = ScheduleTickRow.schedule_id.in_(ids)
    keys = sa.select(ScheduleTickRow.schedule_id, ScheduleTickRow.tick_at).where(
        of_ours, ScheduleTickRow.tick_at >= since
    )
    existing.ticks = {(schedule_id, at) for schedule_id, at in session.execute(keys)}
    waiting = sa.select(ScheduleTickRow.schedule_id, sa.func.count()).where(
        of_ours, sa.literal_column("outcome = 'waiting'")
    )
    for schedule_id, count in session.execute(waiting.group_by(ScheduleTickRow.schedule_id)):
        existing.waiting[schedule_id] = count
    existing.jobs = open_jobs(session, ids)
    return existing


def open_jobs(session: Session, schedule_ids: Iterable[int]) -> dict[int, list[str]]:
    """Return the ids of the open jobs of these schedules."""
    # Literal states, so that PostgreSQL sees that its partial index applies.
    query = (
        sa.text(f"SELECT schedule_id, id FROM job WHERE schedule_id IN :ids AND state IN ({_OPEN_STATES}) ORDER BY id")
        .bindparams(sa.bindparam("ids", expanding=True))
        .columns(sa.column("schedule_id", ScheduleRow.id.type), sa.column("id", ScheduleTickRow.job_id.type))
    )
    jobs: dict[int, list[str]] = {}
    for schedule_id, job_id in session.execute(query, {"ids": list(schedule_ids)}):
        jobs.setdefault(schedule_id, []).append(job_id)
    return jobs


def _select_ticks(planned: Planned, first: datetime, now: datetime) -> tuple[list[Tick], datetime | None]:
    """Select ticks from `first` to now by catch_up, to start or to record as missed; also return the next tick."""
    keep = planned.catch_up_limit if planned.catch_up == "all" else 1
    due = planned.timing.due(first, now, keep + 1)
    latest, before = due.ticks[-keep:], due.ticks[:-keep]
    if planned.catch_up == "skip" and latest and now - latest[-1] > ON_TIME:
        latest, before = (), due.ticks
    ticks = [Tick(planned, at, "started") for at in latest]
    if before and planned.catch_up == "once":
        ticks[0].note = f"also for those before it, since {first.isoformat()}"
    elif before:
        several = None if before[-1] == first else f"and those before it, since {first.isoformat()}"
        ticks.insert(0, Tick(planned, before[-1], "missed", several))
    return ticks, due.upcoming


def _apply_overlap(session: Session, tick: Tick, existing: _Existing) -> None:
    """Set the outcome of a tick that would start, by the overlap policy and the open jobs of its schedule."""
    if tick.outcome != "started":
        return
    planned = tick.schedule
    jobs = existing.jobs.setdefault(planned.id, [])
    if planned.overlap == "replace" and (jobs or existing.waiting[planned.id]):
        existing.jobs[planned.id] = jobs = [job_id for job_id in jobs if not _cancel(session, planned.tenant, job_id)]
        _skip_waiting(session, planned, tick.at)
        existing.waiting[planned.id] = 0
    busy = bool(jobs) or existing.waiting[planned.id] > 0
    if busy and (planned.overlap == "skip" or existing.waiting[planned.id] >= MAX_WAITING):
        tick.outcome, tick.note = "skipped", f"job {jobs[0]} was open" if jobs else "ticks before it wait"
    elif busy:
        tick.outcome = "waiting"
        existing.waiting[planned.id] += 1
    else:
        jobs.append("of this tick")


def _cancel(session: Session, tenant: str, job_id: str) -> bool:
    """Cancel the job; return False if it still runs and was asked to stop."""
    return commands.cancel(session, tenant, job_id).state != "running"


def _skip_waiting(session: Session, planned: Planned, at: datetime) -> None:
    waiting = sa.update(ScheduleTickRow).where(
        ScheduleTickRow.schedule_id == planned.id, sa.literal_column("outcome = 'waiting'")
    )
    session.execute(waiting.values(outcome="skipped", note=f"replaced by the tick of {at.isoformat()}"))


def _start(session: Session, ticks: Sequence[Tick]) -> None:
    """Enqueue a job for each tick. An error is recorded in its tick and does not stop the others."""
    groups: dict[tuple[str, str], list[tuple[Tick, Job]]] = {}
    for tick in sorted(ticks, key=lambda tick: tick.at):
        try:
            job = _job(tick.schedule)
        except AppError as error:
            _fail(tick, error)
            continue
        groups.setdefault((tick.schedule.tenant, tick.schedule.kind), []).append((tick, job))
    for (tenant, _), together in groups.items():
        try:
            _enqueue(session, tenant, together)
        except AppError:  # one of them is wrong: enqueue each alone
            for pair in together:
                try:
                    _enqueue(session, tenant, [pair])
                except AppError as error:
                    _fail(pair[0], error)
    new = [(tick.job_id, tick.schedule.id) for tick in ticks if tick.job_id and tick.is_new]
    if new:
        mark_scheduled(session, new)


def _job(planned: Planned) -> Job:
    kind = definition(planned.kind)
    if kind is None:
        raise AppError(f"this scheduler knows no kind {planned.kind}: MILLRACE_MODULES names other modules here")
    return kind.load(planned.payload, planned.payload_version)


def _enqueue(session: Session, tenant: str, together: Sequence[tuple[Tick, Job]]) -> None:
    with session.begin_nested():
        rows = enqueue_many(session, [job for _, job in together], tenant=tenant)
        # Schedules of the program are housekeeping; no tenant's quota applies to them.
        if any(row.is_new and not tick.schedule.in_code for (tick, _), row in zip(together, rows, strict=True)):
            quota.check_job_quota(session, tenant)
    for (tick, _), row in zip(together, rows, strict=True):
        tick.job_id, tick.is_new = row.id, row.is_new


def _fail(tick: Tick, error: AppError) -> None:
    # A reached quota is not an error of the schedule: the next tick may have room.
    tick.outcome, tick.note = "skipped" if isinstance(error, LimitReached) else "failed", error.message
    log.warning("schedule_not_started", schedule=tick.schedule.name, tick_at=tick.at, reason=error.message)


def _write_ticks(session: Session, ticks: Sequence[Tick], now: datetime) -> None:
    rows = [
        {
            "schedule_id": tick.schedule.id,
            "tick_at": tick.at,
            "outcome": tick.outcome,
            "job_id": tick.job_id,
            "note": tick.note,
            "written_at": now,
        }
        for tick in ticks
    ]
    if rows:
        session.execute(sa.insert(ScheduleTickRow), rows)


@lru_cache
def _plans_sql(dialect: str) -> sa.TextClause:
    columns = {"key": "int", "new_next": "time", "new_planned": "time", "new_last": "time"}
    return sa.text(
        "UPDATE schedule SET next_at = new_next, planned_at = new_planned, last_at = COALESCE(new_last, last_at) "
        f"FROM {sql.rows(dialect, columns)} WHERE schedule.id = key"
    )


def _write_plans(session: Session, plans: Sequence[dict[str, Any]]) -> None:
    dialect = sql.dialect_of(session)
    session.execute(_plans_sql(dialect), {"rows": sql.encode_rows(dialect, plans)})


def replan(session: Session, now: datetime) -> int:
    """Recompute plans that a clock ahead of this one made; otherwise these schedules would not fire until then.

    Ticks that were fired ahead of their time do not fire again. Return the number of plans.
    """
    ahead = _lock(session, sa.and_(ScheduleRow.paused_at.is_(None), ScheduleRow.planned_at > now + JUMP), BATCH)
    if ahead:
        plans = [
            {"key": planned.id, "new_next": planned.timing.after(now - JUMP), "new_planned": now} for planned in ahead
        ]
        _write_plans(session, plans)
    return len(ahead)


_NEXT_WAITING = f"""
    SELECT schedule_id, MIN(tick_at) AS tick_at FROM schedule_tick JOIN schedule ON schedule.id = schedule_id
    WHERE outcome = 'waiting' AND paused_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM job WHERE job.schedule_id = schedule_tick.schedule_id AND job.state IN ({_OPEN_STATES}))
    GROUP BY schedule_id ORDER BY schedule_id LIMIT {BATCH}"""


def waiting(session: Session) -> dict[int, datetime]:
    """Return the first waiting tick of each schedule without an open job."""
    query = sa.text(_NEXT_WAITING).columns(
        sa.column("schedule_id", ScheduleRow.id.type), sa.column("tick_at", UtcDateTime())
    )
    return {row.schedule_id: row.tick_at for row in session.execute(query)}


def start_waiting(session: Session) -> int:
    """Start ticks whose earlier job has ended; return how many."""
    locked = _lock(session, ScheduleRow.id.in_(list(waiting(session))), BATCH)
    if not locked:
        return 0
    first = waiting(session)  # again, under the locks
    ticks = [Tick(planned, first[planned.id], "started") for planned in locked if planned.id in first]
    _start(session, ticks)
    for tick in ticks:
        session.execute(
            sa.update(ScheduleTickRow)
            .where(ScheduleTickRow.schedule_id == tick.schedule.id, ScheduleTickRow.tick_at == tick.at)
            .values(outcome=tick.outcome, job_id=tick.job_id, note=tick.note, written_at=clock.now())
        )
    return len(ticks)
