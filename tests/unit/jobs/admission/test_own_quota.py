"""What jobs and schedules start by themselves is held to the quota of their tenant."""

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
from tests.support.timetable import MINUTE, Clock, Timetable, hand, table
from tests.unit.jobs.children.family import Desk, Family
from tests.unit.jobs.conftest import Chore

__all__ = ["hand", "table"]


def _most_open(most: int | None) -> None:
    def change(session: Session) -> None:
        tenant = session.get_one(Tenant, DEFAULT_TENANT)
        tenant.max_open_jobs = most

    database().transaction(change)


def _notes(schedule_id: int) -> list[str | None]:
    query = sa.select(ScheduleTickRow.note).where(ScheduleTickRow.schedule_id == schedule_id)
    return database().read(lambda session: list(session.scalars(query)))


@pytest.fixture
def desk(spine_env: SettingsEnv) -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


def test_a_parent_whose_children_are_too_many_starts_none_and_tries_again(desk: Desk) -> None:
    _most_open(3)
    family = Family(desk, [Chore(number=n) for n in range(2)])
    first = family.children
    family.jobs = [Chore(number=n) for n in range(4)]
    with pytest.raises(LimitReached) as refused:
        family.start()
    assert (refused.value.code, family.counts()) == ("quota_open_jobs", (2, 2, 0))
    desk.end(family.run, refused.value)
    row = desk.until(family.id, "retrying")
    assert (row.error_code, family.children) == ("quota_open_jobs", first)
    # What it had started before ends, and there is room: the same run goes through, and starts only what is missing.
    family.end(2)
    database().transaction(edit.run_now, row.tenant, family.id)
    (family.run,) = desk.take()
    desk.begin(family.run)
    assert family.start() == 2
    assert (family.children[:2], family.counts()) == (first, (4, 2, 0))


def test_a_child_that_is_there_already_is_never_too_many(desk: Desk) -> None:
    family = Family(desk, [Chore(number=n) for n in range(2)])
    _most_open(1)
    assert family.start() == 0
    family.jobs = [Chore(number=n) for n in range(3)]
    with pytest.raises(LimitReached):
        family.start()
    _most_open(None)
    assert family.start() == 1


def test_a_tick_beyond_the_quota_is_skipped_and_says_why(table: Timetable, hand: Clock) -> None:
    _most_open(1)
    made = [table.make("a", overlap="queue"), table.make("b", overlap="queue")]
    hand.on(MINUTE)
    assert table.fire() == {"started": 1, "skipped": 1}
    (started,) = (one for one in made if table.jobs(one))
    (skipped,) = (one for one in made if one != started)
    assert _notes(skipped) == ["the tenant may have 1 open jobs at once"]
    (job,) = table.jobs(started)
    table.end(job)
    hand.on(timedelta(minutes=1))
    assert table.fire() == {"started": 1, "skipped": 1}
    _most_open(None)
    hand.on(MINUTE)
    table.fire()
    assert table.jobs(skipped)


def test_a_schedule_of_the_program_asks_no_quota(table: Timetable, hand: Clock) -> None:
    _most_open(0)
    one = Schedule("tests housekeeping", Chore(), cron="* * * * *")
    table.db.transaction(store.declare, [one])
    hand.on(MINUTE)
    assert table.fire() == {"started": 1}
