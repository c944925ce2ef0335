"""Schedules on one database, and a wall clock that the test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock
from app.core.db import Database, database
from app.jobs.ledger import claims
from app.jobs.ledger.ends import finish
from app.jobs.models import JobRow, ScheduleRow, ScheduleTickRow
from app.jobs.schedules import firing, store
from app.jobs.schedules.store import Plan
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import WORKER, Chore, Ledger, end_of

MINUTE = timedelta(minutes=1)


class FakeClock:
    """A wall clock of this process that moves only when the test sets it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 2, 12, 0, 30, tzinfo=UTC)
        self.set(self.now)

    def set(self, now: datetime) -> datetime:
        self.now = now
        clock.shift(now - datetime.now(UTC))
        return now

    def advance(self, step: timedelta) -> datetime:
        return self.set(self.now + step)


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    yield FakeClock()
    clock.shift(timedelta(0))


class Timetable:
    """Creates, fires and reads schedules of one database."""

    def __init__(self, db: Database, clock: FakeClock) -> None:
        self.ledger = Ledger(db)
        self.ledger.worker()
        self.db = db
        self.clock = clock

    def make(self, name: str = "s", cron: str | None = "* * * * *", tenant: str = "default", **how: Any) -> int:
        plan = Plan(**({"kind": Chore.kind, "cron": cron} | how))
        return self.db.transaction(store.create, tenant, name, plan).id

    def fire(self) -> Counter[str]:
        self.db.transaction(firing.replan, self.clock.now)
        return self.db.transaction(firing.fire, self.clock.now).ticks

    def ticks(self, schedule_id: int) -> list[tuple[str, str]]:
        query = sa.select(ScheduleTickRow).where(ScheduleTickRow.schedule_id == schedule_id)
        rows = self.db.read(lambda session: list(session.scalars(query.order_by(ScheduleTickRow.tick_at))))
        return [(f"{row.tick_at:%d %H:%M}", row.outcome) for row in rows]

    def jobs(self, schedule_id: int) -> list[JobRow]:
        query = sa.select(JobRow).where(JobRow.schedule_id == schedule_id).order_by(JobRow.id)
        return self.db.read(lambda session: list(session.scalars(query)))

    def row(self, schedule_id: int) -> ScheduleRow:
        row = self.db.read(lambda session: session.get(ScheduleRow, schedule_id))
        assert row is not None
        return row

    def run(self, job: JobRow) -> None:
        (claim,) = self.db.transaction(claims.claim, [job.id], WORKER)
        assert claim.id == job.id

    def end(self, job: JobRow) -> None:
        """Claim the job unless it is claimed, and end it as succeeded."""
        if job.state == "queued":
            self.run(job)
        self.db.transaction(finish, [end_of(job.id, 1, "succeeded")])

    def wait(self) -> int:
        return self.db.transaction(firing.start_waiting)


@pytest.fixture
def timetable(spine_env: SettingsEnv, fake_clock: FakeClock) -> Timetable:
    return Timetable(database(), fake_clock)
