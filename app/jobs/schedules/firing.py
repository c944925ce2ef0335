"""What a tick starts: every schedule's due ticks, each exactly once, however many schedulers look at whatever clock.

Whoever works on a schedule holds the lock of its row; what became of a tick is a row of its own, written once.
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
from app.jobs.schedules.cron import Timing
from app.jobs.states import OPEN

CatchUp = Literal["skip", "once", "all"]
Overlap = Literal["skip", "queue", "replace"]
Outcome = Literal["started", "waiting", "skipped", "missed", "failed"]

# A tick that is found later than this was missed; the scheduler looks once a minute.
ON_TIME = timedelta(seconds=90)
# A plan made so far in the future was made by a clock that has been set back since, or that is ahead of ours.
JUMP = timedelta(seconds=60)
MOST_WAITING = 100
BATCH = 250

_OPEN_STATES = ", ".join(f"'{state}'" for state in OPEN)
_COLUMNS = (
    "id, tenant, name, kind, payload_version, payload, cron, every_s, timezone, anchor_at, catch_up, catch_up_limit, "
    "overlap, next_at, in_code"
)

log = get_logger(__name__)


class Planned(NamedTuple):
    """A schedule whose time has come, locked. The order is that of _COLUMNS."""

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
    def timing(self) -> Timing:
        return Timing(self.cron, self.every_s, self.timezone, self.anchor_at)


@dataclass(slots=True)
class Tick:
    """What becomes of one tick."""

    schedule: Planned
    at: datetime
    outcome: Outcome
    note: str | None = None
    job_id: str | None = None
    # Else the job that stands for it, by its unique key, was there already.
    is_new: bool = False


@dataclass(slots=True)
class _Found:
    """What is there already of the schedules under the lock."""

    ticks: set[tuple[int, datetime]] = field(default_factory=set)
    jobs: dict[int, list[str]] = field(default_factory=dict)
    waiting: Counter[int] = field(default_factory=Counter)


class Fired(NamedTuple):
    """How many schedules were due, and what became of their ticks; as many as `limit`: there may be more."""

    schedules: int
    ticks: Counter[str]


def fire(session: Session, tick_at: datetime, limit: int = BATCH) -> Fired:
    """Start what is due at that time, of up to `limit` schedules; the jobs are there with this transaction.

    Which ticks start a job is up to the schedule: catch_up for those that nobody saw in time, overlap for those that
    come while a job of an earlier one is open.
    """
    due = _locked(session, sa.and_(ScheduleRow.paused_at.is_(None), ScheduleRow.next_at <= tick_at), limit)
    if not due:
        return Fired(0, Counter())
    found = _look(session, due, min(one.next_at for one in due if one.next_at))
    ticks: list[Tick] = []
    plans: list[dict[str, Any]] = []
    for one in due:
        assert one.next_at is not None
        wanted, upcoming = _wanted(one, one.next_at, tick_at)
        fresh = [tick for tick in wanted if (one.id, tick.at) not in found.ticks]
        for tick in fresh:
            _judge_overlap(session, tick, found)
        ticks += fresh
        last = max((tick.at for tick in wanted), default=None)
        plans.append({"key": one.id, "new_next": upcoming, "new_planned": tick_at, "new_last": last})
    _start(session, [tick for tick in ticks if tick.outcome == "started"])
    _write_ticks(session, ticks, tick_at)
    _write_plans(session, plans)
    return Fired(len(due), Counter(tick.outcome for tick in ticks))


def _locked(session: Session, condition: sa.ColumnElement[bool], limit: int) -> list[Planned]:
    """Schedules under the lock of their rows; those that somebody else has locked are somebody else's."""
    columns = (getattr(ScheduleRow, name) for name in _COLUMNS.split(", "))
    query = sa.select(*columns).where(condition).order_by(ScheduleRow.next_at, ScheduleRow.id).limit(limit)
    return [Planned(*row) for row in session.execute(query.with_for_update(skip_locked=True))]


def _look(session: Session, schedules: Sequence[Planned], since: datetime) -> _Found:
    ids = [one.id for one in schedules]
    found = _Found()
    of_ours = ScheduleTickRow.schedule_id.in_(ids)
    keys = sa.select(ScheduleTickRow.schedule_id, ScheduleTickRow.tick_at).where(
        of_ours, ScheduleTickRow.tick_at >= since
    )
    found.ticks = {(schedule_id, at) for schedule_id, at in session.execute(keys)}
    waiting = sa.select(ScheduleTickRow.schedule_id, sa.func.count()).where(
        of_ours, sa.literal_column("outcome = 'waiting'")
    )
    for schedule_id, count in session.execute(waiting.group_by(ScheduleTickRow.schedule_id)):
        found.waiting[schedule_id] = count
    found.jobs = open_jobs(session, ids)
    return found


def open_jobs(session: Session, schedule_ids: Iterable[int]) -> dict[int, list[str]]:
    """The ids of the open jobs of these schedules."""
    # The states written out: PostgreSQL must see that its partial index fits.
    query = (
        sa.text(f"SELECT schedule_id, id FROM job WHERE schedule_id IN :ids AND state IN ({_OPEN_STATES}) ORDER BY id")
        .bindparams(sa.bindparam("ids", expanding=True))
        .columns(sa.column("schedule_id", ScheduleRow.id.type), sa.column("id", ScheduleTickRow.job_id.type))
    )
    found: dict[int, list[str]] = {}
    for schedule_id, job_id in session.execute(query, {"ids": list(schedule_ids)}):
        found.setdefault(schedule_id, []).append(job_id)
    return found


def _wanted(one: Planned, first: datetime, now: datetime) -> tuple[list[Tick], datetime | None]:
    """The ticks from `first` to now that are started or told of, as catch_up has it, and the next one to come."""
    keep = one.catch_up_limit if one.catch_up == "all" else 1
    due = one.timing.due(first, now, keep + 1)
    kept, before = due.ticks[-keep:], due.ticks[:-keep]
    if one.catch_up == "skip" and kept and now - kept[-1] > ON_TIME:
        kept, before = (), due.ticks
    ticks = [Tick(one, at, "started") for at in kept]
    if before and one.catch_up == "once":
        ticks[0].note = f"also for those before it, since {first.isoformat()}"
    elif before:
        several = None if before[-1] == first else f"and those before it, since {first.isoformat()}"
        ticks.insert(0, Tick(one, before[-1], "missed", several))
    return ticks, due.upcoming


def _judge_overlap(session: Session, tick: Tick, found: _Found) -> None:
    """What becomes of a tick that would start, in view of the jobs that its schedule has open."""
    if tick.outcome != "started":
        return
    one = tick.schedule
    jobs = found.jobs.setdefault(one.id, [])
    if one.overlap == "replace" and (jobs or found.waiting[one.id]):
        found.jobs[one.id] = jobs = [job_id for job_id in jobs if not _cancel(session, one.tenant, job_id)]
        _forget_waiting(session, one, tick.at)
        found.waiting[one.id] = 0
    busy = bool(jobs) or found.waiting[one.id] > 0
    if busy and (one.overlap == "skip" or found.waiting[one.id] >= MOST_WAITING):
        tick.outcome, tick.note = "skipped", f"job {jobs[0]} was open" if jobs else "ticks before it wait"
    elif busy:
        tick.outcome = "waiting"
        found.waiting[one.id] += 1
    else:
        jobs.append("of this tick")


def _cancel(session: Session, tenant: str, job_id: str) -> bool:
    """Whether the job has stopped; one that runs is asked to."""
    return commands.cancel(session, tenant, job_id).state != "running"


def _forget_waiting(session: Session, one: Planned, at: datetime) -> None:
    waiting = sa.update(ScheduleTickRow).where(
        ScheduleTickRow.schedule_id == one.id, sa.literal_column("outcome = 'waiting'")
    )
    session.execute(waiting.values(outcome="skipped", note=f"replaced by the tick of {at.isoformat()}"))


def _start(session: Session, ticks: Sequence[Tick]) -> None:
    """A job for each; what cannot be made is told in its tick and keeps no other from starting."""
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
        except AppError:  # one of them; each by itself then
            for pair in together:
                try:
                    _enqueue(session, tenant, [pair])
                except AppError as error:
                    _fail(pair[0], error)
    made = [(tick.job_id, tick.schedule.id) for tick in ticks if tick.job_id and tick.is_new]
    if made:
        mark_scheduled(session, made)


def _job(one: Planned) -> Job:
    kind = definition(one.kind)
    if kind is None:
        raise AppError(f"this scheduler knows no kind {one.kind}: MILLRACE_MODULES names other modules here")
    return kind.load(one.payload, one.payload_version)


def _enqueue(session: Session, tenant: str, together: Sequence[tuple[Tick, Job]]) -> None:
    with session.begin_nested():
        rows = enqueue_many(session, [job for _, job in together], tenant=tenant)
        # The program's own are its housekeeping, and no tenant's quota keeps them from it.
        if any(row.is_new and not tick.schedule.in_code for (tick, _), row in zip(together, rows, strict=True)):
            quota.check_job_quota(session, tenant)
    for (tick, _), row in zip(together, rows, strict=True):
        tick.job_id, tick.is_new = row.id, row.is_new


def _fail(tick: Tick, error: AppError) -> None:
    # Beyond a quota is no fault of the schedule: the next tick may find room.
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
    """Plan anew what a clock has planned that was ahead of this one: else it would be silent until then.

    Ticks that were done ahead of their time are not done again.
    """
    ahead = _locked(session, sa.and_(ScheduleRow.paused_at.is_(None), ScheduleRow.planned_at > now + JUMP), BATCH)
    if ahead:
        plans = [{"key": one.id, "new_next": one.timing.after(now - JUMP), "new_planned": now} for one in ahead]
        _write_plans(session, plans)
    return len(ahead)


_NEXT_WAITING = f"""
    SELECT schedule_id, MIN(tick_at) AS tick_at FROM schedule_tick JOIN schedule ON schedule.id = schedule_id
    WHERE outcome = 'waiting' AND paused_at IS NULL AND NOT EXISTS (
        SELECT 1 FROM job WHERE job.schedule_id = schedule_tick.schedule_id AND job.state IN ({_OPEN_STATES}))
    GROUP BY schedule_id ORDER BY schedule_id LIMIT {BATCH}"""


def waiting(session: Session) -> dict[int, datetime]:
    """The first tick that waits of each schedule that has nothing open any more."""
    query = sa.text(_NEXT_WAITING).columns(
        sa.column("schedule_id", ScheduleRow.id.type), sa.column("tick_at", UtcDateTime())
    )
    return {row.schedule_id: row.tick_at for row in session.execute(query)}


def start_waiting(session: Session) -> int:
    """Start the ticks that wait for an earlier job which has ended; how many there were."""
    locked = _locked(session, ScheduleRow.id.in_(list(waiting(session))), BATCH)
    if not locked:
        return 0
    first = waiting(session)  # once more, under the locks
    ticks = [Tick(one, first[one.id], "started") for one in locked if one.id in first]
    _start(session, ticks)
    for tick in ticks:
        session.execute(
            sa.update(ScheduleTickRow)
            .where(ScheduleTickRow.schedule_id == tick.schedule.id, ScheduleTickRow.tick_at == tick.at)
            .values(outcome=tick.outcome, job_id=tick.job_id, note=tick.note, written_at=clock.now())
        )
    return len(ticks)
