"""Rows of schedules: declared in code next to a definition, or created, changed and paused by a tenant.

    Schedule("nightly report", Report(days=1), cron="30 2 * * 1-5", timezone="Europe/Berlin")

The scheduler imports a module that declares a schedule, and keeps its row equal to the declaration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, get_args

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.clock import moment
from app.core.errors import AppError, Conflict, InvalidInput, NotFound
from app.jobs.definition import Job, definition
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger.enqueue import enqueue, mark_scheduled
from app.jobs.models import ScheduleRow, ScheduleTickRow
from app.jobs.payloads import payload_dict, payload_json
from app.jobs.schedules import firing
from app.jobs.schedules.cron import TickTimes
from app.jobs.schedules.firing import CatchUp, Overlap

DEFAULT_TENANT = "default"
MAX_CATCH_UP = 100
SHOWN_TIMES = 5
SHOWN_TICKS = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """The job to start, its times, and its policies.

    catch_up: for missed ticks start none (skip), one for all (once), or each of the last catch_up_limit (all).
    overlap: a tick that comes while a job of an earlier one is open is dropped (skip), waits for its end (queue), or
    cancels it (replace).
    """

    kind: str
    payload: dict[str, Any] = field(default_factory=dict)
    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    catch_up: CatchUp = "once"
    catch_up_limit: int = 10
    overlap: Overlap = "skip"

    def checked(self) -> dict[str, Any]:
        """Return the columns of its row. Raises InvalidInput that names the wrong field."""
        TickTimes(self.cron, self.every_s, self.timezone, clock.now()).check()
        for name, allowed in (("catch_up", CatchUp), ("overlap", Overlap)):
            if getattr(self, name) not in get_args(allowed):
                raise InvalidInput(f"{name} must be one of {', '.join(get_args(allowed))}", code="schedule_policy")
        if not 1 <= self.catch_up_limit <= MAX_CATCH_UP:
            raise InvalidInput(
                f"catch_up_limit must be 1 to {MAX_CATCH_UP}, not {self.catch_up_limit}", code="schedule_policy"
            )
        if self.catch_up == "all" and self.overlap != "queue":
            wrong = f"catch_up all needs overlap queue: with {self.overlap} at most one of the ticks would run"
            raise InvalidInput(wrong, code="schedule_policy")
        kind = definition(self.kind)
        if kind is None:
            raise InvalidInput(f"kind {self.kind!r} is not known", code="kind_unknown")
        text = payload_json(kind.load(self.payload, kind.payload_version))
        return asdict(self) | {"payload": json.loads(text), "payload_version": kind.payload_version}


_declared: dict[tuple[str, str], Schedule] = {}


@dataclass(frozen=True)
class Schedule:
    """A schedule declared in code; the fields are those of Plan. Names are unique within a tenant."""

    name: str
    job: Job
    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    catch_up: CatchUp = "once"
    catch_up_limit: int = 10
    overlap: Overlap = "skip"
    tenant: str = DEFAULT_TENANT

    def __post_init__(self) -> None:
        try:
            self.plan().checked()
        except AppError as error:
            raise TypeError(f"schedule {self.name!r}: {error.message}") from error
        key = (self.tenant, self.name)
        if _declared.get(key, self) != self:
            raise TypeError(f"schedule {self.name!r} is declared twice")
        _declared[key] = self

    def plan(self) -> Plan:
        how = {name: getattr(self, name) for name in Plan.__dataclass_fields__ if name not in ("kind", "payload")}
        return Plan(self.job.kind, payload_dict(self.job), **how)


def declare(session: Session, declared: Sequence[Schedule] | None = None) -> int:
    """Make the rows equal to the declared schedules and delete others; return how many rows changed.

    A row that a person has paused stays paused.
    """
    schedules = _declared.values() if declared is None else declared
    missing = {(schedule.tenant, schedule.name): schedule for schedule in schedules}
    changed = 0
    for row in session.scalars(sa.select(ScheduleRow).where(ScheduleRow.in_code).order_by(ScheduleRow.id)):
        schedule = missing.pop((row.tenant, row.name), None)
        if schedule is None:
            session.delete(row)
            changed += 1
        else:
            changed += _update(row, schedule.plan().checked())
    for schedule in missing.values():
        columns = schedule.plan().checked()
        try:
            with session.begin_nested():
                session.add(_new(schedule.tenant, schedule.name, columns, in_code=True))
        except IntegrityError:  # another scheduler was first, or a tenant has one with this name
            same_name = sa.select(ScheduleRow).where(
                ScheduleRow.tenant == schedule.tenant, ScheduleRow.name == schedule.name
            )
            row = session.scalars(same_name).one()
            _update(row, columns)
            row.in_code = True
        changed += 1
    session.flush()
    return changed


def _new(tenant: str, name: str, columns: dict[str, Any], **more: Any) -> ScheduleRow:
    now = clock.now()
    row = ScheduleRow(tenant=tenant, name=name, anchor_at=now, created_at=now, updated_at=now, **columns, **more)
    plan_next(row, now)
    return row


def _update(row: ScheduleRow, columns: dict[str, Any]) -> bool:
    """Write the columns that differ; return True if any did. New times count from now."""
    different = {name for name, value in columns.items() if getattr(row, name) != value}
    if not different:
        return False
    for name in different:
        setattr(row, name, columns[name])
    now = clock.now()
    row.updated_at = now
    if different & {"cron", "every_s", "timezone"}:
        row.anchor_at = now
        if row.paused_at is None:
            plan_next(row, now)
    return True


def plan_next(row: ScheduleRow, now: datetime) -> bool:
    """Compute the next time from now; return False if the schedule has no further time."""
    row.next_at, row.planned_at = timing(row).after(now), now
    return row.next_at is not None


def timing(row: ScheduleRow) -> TickTimes:
    """Return the timing of the row."""
    return TickTimes(row.cron, row.every_s, row.timezone, row.anchor_at)


def create(session: Session, tenant: str, name: str, plan: Plan, *, paused: bool = False) -> ScheduleRow:
    """Create a tenant's schedule. Raises InvalidInput, and Conflict if the tenant has one with that name."""
    row = _new(tenant, name, plan.checked(), in_code=False)
    if paused:
        row.paused_at, row.next_at = row.created_at, None
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise Conflict(f"A schedule named {name!r} exists", code="schedule_exists") from error
    return row


def get(session: Session, tenant: str, schedule_id: int, *, lock: bool = False) -> ScheduleRow:
    """Return the schedule's row. Raises NotFound, also for another tenant's schedule."""
    query = sa.select(ScheduleRow).where(ScheduleRow.id == schedule_id, ScheduleRow.tenant == tenant)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"Schedule {schedule_id} not found", code="schedule_not_found")
    return row


def _own(session: Session, tenant: str, schedule_id: int) -> ScheduleRow:
    row = get(session, tenant, schedule_id, lock=True)
    if row.in_code:
        message = f"Schedule {row.name!r} is declared in code and can only be changed there; pause it instead"
        raise Conflict(message, code="schedule_in_code")
    return row


def change(session: Session, tenant: str, schedule_id: int, name: str | None, changes: dict[str, Any]) -> ScheduleRow:
    """Change some fields of the plan; cron replaces every_s, and vice versa."""
    row = _own(session, tenant, schedule_id)
    current = Plan(**{field: getattr(row, field) for field in Plan.__dataclass_fields__})
    for name_set, other in (("cron", "every_s"), ("every_s", "cron")):
        if changes.get(name_set) is not None:
            changes = {other: None} | changes
    _update(row, replace(current, **changes).checked())
    if name is not None and name != row.name:
        try:
            with session.begin_nested():
                row.name, row.updated_at = name, clock.now()
        except IntegrityError as error:
            raise Conflict(f"A schedule named {name!r} exists", code="schedule_exists") from error
    session.flush()
    return row


def delete(session: Session, tenant: str, schedule_id: int) -> None:
    """Delete the schedule with its ticks; its jobs stay."""
    session.delete(_own(session, tenant, schedule_id))


def pause(session: Session, tenant: str, schedule_id: int) -> ScheduleRow:
    """Start nothing more, no waiting tick either; running jobs go on."""
    row = get(session, tenant, schedule_id, lock=True)
    if row.paused_at is None:
        row.paused_at, row.next_at = clock.now(), None
    return row


def resume(session: Session, tenant: str, schedule_id: int) -> ScheduleRow:
    """Continue with the next tick from now; ticks of the pause are not caught up."""
    row = get(session, tenant, schedule_id, lock=True)
    if row.paused_at is not None:
        row.paused_at = None
        plan_next(row, clock.now())
    return row


def run_now(session: Session, tenant: str, schedule_id: int, request_id: str | None = None) -> EnqueuedJob:
    """Start its job now, also while it is paused. Raises Conflict while one of its jobs is open."""
    row = get(session, tenant, schedule_id, lock=True)
    for job_id in firing.open_jobs(session, [row.id]).get(row.id, []):
        raise Conflict(f"Job {job_id} of this schedule is still open", code="schedule_overlap")
    kind = definition(row.kind)
    if kind is None:
        raise Conflict(f"This server does not know the kind {row.kind!r}", code="kind_unknown")
    job = enqueue(session, kind.load(row.payload, row.payload_version), tenant=tenant, request_id=request_id)
    if job.is_new:
        mark_scheduled(session, [(job.id, row.id)])
    now = clock.now()
    tick = {"schedule_id": row.id, "tick_at": now, "outcome": "started", "job_id": job.id, "note": "by hand"}
    session.execute(sa.insert(ScheduleTickRow), tick | {"written_at": now})
    return job


def list_schedules(
    session: Session, tenant: str, limit: int, *, kind: str | None = None, after_id: int = 0
) -> list[ScheduleRow]:
    """Return schedules in the order of their creation, at most `limit`."""
    query = sa.select(ScheduleRow).where(ScheduleRow.tenant == tenant, ScheduleRow.id > after_id)
    if kind is not None:
        query = query.where(ScheduleRow.kind == kind)
    return list(session.scalars(query.order_by(ScheduleRow.id).limit(limit)))


def schedule_view(row: ScheduleRow) -> dict[str, Any]:
    """Return a schedule as the API shows it."""
    names = ("name", "tenant", "kind", "payload", "cron", "every_s", "timezone")
    policies = ("catch_up", "catch_up_limit", "overlap")
    times = ("next_at", "last_at", "paused_at", "created_at", "updated_at")
    return {
        "id": str(row.id),
        **{name: getattr(row, name) for name in names + policies},
        "source": "code" if row.in_code else "api",
        **{name: moment(getattr(row, name)) for name in times},
    }


def schedule_detail(session: Session, row: ScheduleRow) -> dict[str, Any]:
    """Return a schedule with its next times, open jobs and last ticks, the newest first."""
    query = sa.select(ScheduleTickRow).where(ScheduleTickRow.schedule_id == row.id)
    ticks = session.scalars(query.order_by(ScheduleTickRow.tick_at.desc()).limit(SHOWN_TICKS))
    return schedule_view(row) | {
        "next": [moment(tick) for tick in timing(row).following(clock.now(), SHOWN_TIMES)],
        "open_jobs": firing.open_jobs(session, [row.id]).get(row.id, []),
        "ticks": [
            {"at": moment(tick.tick_at), "outcome": tick.outcome, "job_id": tick.job_id, "note": tick.note}
            for tick in ticks
        ],
    }
