"""Jobs started by jobs and by schedules count against the quota of their tenant."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import database
from app.core.errors import LimitReached
from app.jobs.ledger import edit
from app.jobs.models import ScheduleTickRow
from app.jobs.schedules import store
from app.jobs.schedules.store import Schedule
from app.tenants.models import DEFAULT_TENANT, Tenant
from tests.support.databases import SettingsEnv
from tests.support.timetable import MINUTE, FakeClock, Timetable, fake_clock, timetable
from tests.unit.jobs.children.family import Family, FamilyHarness
from tests.unit.jobs.conftest import Chore

__all__ = ["fake_clock", "timetable"]


def _set_max_open(count: int | None) -> None:
    def change(session: Session) -> None:
        tenant = session.get_one(Tenant, DEFAULT_TENANT)
        tenant.max_open_jobs = count

    database().transaction(change)


def _notes(schedule_id: int) -> list[str | None]:
    query = sa.select(ScheduleTickRow.note).where(ScheduleTickRow.schedule_id == schedule_id)
    return database().read(lambda session: list(session.scalars(query)))


@pytest.fixture
def harness(spine_env: SettingsEnv) -> Iterator[FamilyHarness]:
    made = FamilyHarness()
    yield made
    made.close()


def test_parent_over_the_quota_starts_no_child_and_retries(harness: FamilyHarness) -> None:
    _set_max_open(3)
    family = Family(harness, [Chore(number=n) for n in range(2)])
    first = family.children
    family.jobs = [Chore(number=n) for n in range(4)]
    with pytest.raises(LimitReached) as refused:
        family.start()
    assert (refused.value.code, family.counts()) == ("quota_open_jobs", (2, 2, 0))
    harness.end(family.run, refused.value)
    row = harness.until(family.id, "retrying")
    assert (row.error_code, family.children) == ("quota_open_jobs", first)
    # Its earlier children end and make room: the retry starts only the missing children.
    family.end(2)
    database().transaction(edit.run_now, row.tenant, family.id)
    (family.run,) = harness.take()
    harness.begin(family.run)
    assert family.start() == 2
    assert (family.children[:2], family.counts()) == (first, (4, 2, 0))


def test_existing_child_does_not_count_against_the_quota_again(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore(number=n) for n in range(2)])
    _set_max_open(1)
    assert family.start() == 0
    family.jobs = [Chore(number=n) for n in range(3)]
    with pytest.raises(LimitReached):
        family.start()
    _set_max_open(None)
    assert family.start() == 1


def test_tick_over_the_quota_is_skipped_with_a_reason(timetable: Timetable, fake_clock: FakeClock) -> None:
    _set_max_open(1)
    made = [timetable.make("a", overlap="queue"), timetable.make("b", overlap="queue")]
    fake_clock.advance(MINUTE)
    assert timetable.fire() == {"started": 1, "skipped": 1}
    (started,) = (schedule_id for schedule_id in made if timetable.jobs(schedule_id))
    (skipped,) = (schedule_id for schedule_id in made if schedule_id != started)
    assert _notes(skipped) == ["the tenant may have 1 open jobs at once"]
    (job,) = timetable.jobs(started)
    timetable.end(job)
    fake_clock.advance(timedelta(minutes=1))
    assert timetable.fire() == {"started": 1, "skipped": 1}
    _set_max_open(None)
    fake_clock.advance(MINUTE)
    timetable.fire()
    assert timetable.jobs(skipped)


def test_schedule_of_the_program_ignores_the_quota(timetable: Timetable, fake_clock: FakeClock) -> None:
    _set_max_open(0)
    schedule = Schedule("tests housekeeping", Chore(), cron="* * * * *")
    timetable.db.transaction(store.declare, [schedule])
    fake_clock.advance(MINUTE)
    assert timetable.fire() == {"started": 1}
