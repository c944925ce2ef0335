"""Schedules under real schedulers: two of them, one after an outage, one whose clock has jumped. Each tick once."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import database
from app.jobs.models import JobRow, ScheduleRow, ScheduleTickRow
from app.jobs.schedules import store
from app.jobs.schedules.store import Plan
from tests.journeys.conftest import MODULES, TENANT, Ledger
from tests.support.kinds import Noop
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

SCHEDULES = 20
MISSED = 3
MINUTE = timedelta(minutes=1)


def _make(session: Session) -> list[int]:
    """Insert schedules of every minute that no scheduler has fired for three minutes."""
    last = clock.now().replace(second=0, microsecond=0)
    made = []
    for number in range(SCHEDULES):
        plan = Plan(Noop.kind, {"number": number}, cron="* * * * *", catch_up="all", overlap="queue")
        row = store.create(session, TENANT, f"minute {number}", plan)
        row.next_at = last - (MISSED - 1) * MINUTE
        made.append(row.id)
    return made


class Tick(NamedTuple):
    schedule_id: int
    at: datetime
    outcome: str
    job_id: str | None


def _look(session: Session, ids: list[int]) -> tuple[list[Tick], list[str]]:
    """The ticks and the jobs of the schedules, in one moment."""
    columns = (ScheduleTickRow.schedule_id, ScheduleTickRow.tick_at, ScheduleTickRow.outcome, ScheduleTickRow.job_id)
    ticks = session.execute(sa.select(*columns).where(ScheduleTickRow.schedule_id.in_(ids)))
    jobs = session.scalars(sa.select(JobRow.id).where(JobRow.schedule_id.in_(ids)))
    return [Tick(*row) for row in ticks], list(jobs)


def _all_started(ids: list[int], since: datetime) -> bool:
    """Return True if every tick since then has started; fail if one started twice."""
    ticks, jobs = database().read(_look, ids)
    started = [tick for tick in ticks if tick.outcome == "started"]
    assert sorted(str(tick.job_id) for tick in started) == sorted(jobs), "a job without a tick, or a tick with two"
    done = Counter(tick.schedule_id for tick in started if tick.at >= since)
    return all(done[schedule_id] >= MISSED for schedule_id in ids) and len(started) == len(ticks)


def test_two_schedulers_and_a_clock_that_jumps(stack: Stack, ledger: Ledger) -> None:
    stack.env["MILLRACE_MODULES"] = f"{MODULES},tests.support.clock_jump"
    ids = database().transaction(_make)
    began = clock.now() - (MISSED + 1) * MINUTE
    stack.start(workers=1, api=False)
    pair = [stack.add_scheduler(), stack.add_scheduler()]
    wait_until(lambda: _all_started(ids, began), timeout_s=90, what="every tick of an outage to be started, each once")
    pair[0].kill()
    pair[1].stop()

    # A day ahead: the last ten minutes of it are done, each once, and then nothing is planned for a day.
    stack.env["TESTS_CLOCK_JUMP_S"] = "86400"
    ahead = stack.add_scheduler()
    tomorrow = clock.now() + timedelta(hours=23)
    wait_until(lambda: _planned(ids) > tomorrow, timeout_s=60, what="the scheduler with the wrong clock to have ticked")
    ahead.kill()
    ticks, _ = database().read(_look, ids)
    assert any(tick.at > tomorrow for tick in ticks)

    # Right again: planned for the next minute, and no tick fires twice.
    stack.env["TESTS_CLOCK_JUMP_S"] = "0"
    stack.add_scheduler()
    soon = "the schedules to be planned by the right clock"
    wait_until(lambda: _planned(ids) <= clock.now() + MINUTE, timeout_s=60, what=soon)
    _all_started(ids, began)
    states = {row.state for row in ledger.wait_all(_pushed(ids), timeout_s=60)}
    assert states == {"succeeded"}


def _planned(ids: list[int]) -> datetime:
    """When the last of them comes next."""
    latest = sa.select(ScheduleRow.next_at).where(ScheduleRow.id.in_(ids)).order_by(ScheduleRow.next_at.desc()).limit(1)
    next_at = database().read(lambda session: session.scalar(latest))
    assert next_at is not None
    return next_at


def _pushed(ids: list[int]) -> list[str]:
    """Jobs that are due by this clock; those that a clock of tomorrow has made may wait for it."""
    made = sa.select(JobRow.id).where(JobRow.schedule_id.in_(ids), JobRow.due_at <= clock.now())
    return database().read(lambda session: list(session.scalars(made)))
