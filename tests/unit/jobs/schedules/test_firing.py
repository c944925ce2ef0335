"""Each due tick fires once: with any number of schedulers, late, early, or after a clock jump."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core import clock
from app.core.errors import Conflict, InvalidInput, NotFound
from app.jobs.definition import Job
from app.jobs.ledger import commands
from app.jobs.ledger.ends import finish
from app.jobs.models import ScheduleRow
from app.jobs.schedules import firing, store
from app.jobs.schedules.store import Plan, Schedule
from tests.support.databases import SettingsEnv
from tests.support.timetable import MINUTE, FakeClock, Timetable
from tests.unit.jobs.conftest import Chore, Databases, WorkerHarness, end_of

DAY = timedelta(days=1)
T = "default"


class Loose(Job, kind="tests.schedules.loose"):
    """Its payload is checked at the start."""

    count: int


# Each tick once


def test_due_tick_starts_one_job(timetable: Timetable) -> None:
    schedule_id = timetable.make(payload={"number": 7})
    assert timetable.fire() == {}
    timetable.clock.advance(MINUTE)
    assert timetable.fire() == {"started": 1}
    assert timetable.fire() == {}
    (job,) = timetable.jobs(schedule_id)
    assert (job.kind, job.state, job.tenant, job.payload) == (Chore.kind, "queued", T, {"number": 7})
    timetable.end(job)
    timetable.clock.advance(MINUTE)
    assert timetable.fire() == {"started": 1}
    assert timetable.ticks(schedule_id) == [("02 12:01", "started"), ("02 12:02", "started")]
    assert timetable.row(schedule_id).last_at == datetime(2026, 11, 2, 12, 2, tzinfo=UTC)


def test_concurrent_schedulers_start_each_tick_once(timetable: Timetable) -> None:
    """Sixty schedules, six schedulers, five minutes: three hundred jobs."""
    made = [timetable.make(f"s{number}", overlap="queue", catch_up="all") for number in range(60)]
    timetable.clock.advance(5 * MINUTE)
    total: Counter[str] = Counter()
    lock, start = threading.Lock(), threading.Barrier(6)

    def scheduler() -> None:
        start.wait(10)
        while True:
            fired = timetable.db.transaction(firing.fire, timetable.clock.now, 7)
            with lock:
                total.update(fired.ticks)
            if not fired.schedules and not timetable.db.read(_due, timetable.clock.now):
                return

    threads = [threading.Thread(target=scheduler) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert total == {"started": 60, "waiting": 240}
    for schedule_id in made:
        assert [outcome for _, outcome in timetable.ticks(schedule_id)] == ["started"] + 4 * ["waiting"]
        assert len(timetable.jobs(schedule_id)) == 1


def _due(session: Any, now: datetime) -> bool:
    return session.scalar(sa.select(ScheduleRow.id).where(ScheduleRow.next_at <= now).limit(1)) is not None


def test_one_pass_starts_jobs_of_several_tenants_and_kinds(timetable: Timetable) -> None:
    made = {
        (tenant, kind): timetable.make(kind, tenant=tenant, kind=kind, payload=payload)
        for tenant in ("a", "b")
        for kind, payload in ((Chore.kind, {}), (Loose.kind, {"count": 1}))
    }
    timetable.clock.advance(MINUTE)
    assert timetable.fire() == {"started": 4}
    for (tenant, kind), schedule_id in made.items():
        assert [(job.tenant, job.kind) for job in timetable.jobs(schedule_id)] == [(tenant, kind)]


def test_schedule_that_cannot_start_does_not_block_the_others(timetable: Timetable) -> None:
    good, bad, unknown = timetable.make("good"), timetable.make("bad"), timetable.make("unknown")
    timetable.db.transaction(
        lambda s: s.execute(sa.update(ScheduleRow).where(ScheduleRow.id == bad).values(kind=Loose.kind))
    )
    timetable.db.transaction(
        lambda s: s.execute(sa.update(ScheduleRow).where(ScheduleRow.id == unknown).values(kind="no"))
    )
    timetable.clock.advance(MINUTE)
    assert timetable.fire() == {"started": 1, "failed": 2}
    assert [len(timetable.jobs(schedule_id)) for schedule_id in (good, bad, unknown)] == [1, 0, 0]
    detail = timetable.db.read(lambda session: store.schedule_detail(session, store.get(session, T, unknown)))
    assert "knows no kind no" in detail["ticks"][0]["note"]


# Late


def test_catch_up_once_starts_one_job_for_all_missed_ticks(timetable: Timetable) -> None:
    schedule_id = timetable.make(catch_up="once")
    timetable.clock.advance(10 * DAY)
    assert timetable.fire() == {"started": 1}
    assert timetable.ticks(schedule_id) == [("12 12:00", "started")]


def test_catch_up_skip_starts_only_ticks_in_time(timetable: Timetable) -> None:
    daily, minutely = timetable.make("d", "0 12 * * *", catch_up="skip"), timetable.make("m", catch_up="skip")
    timetable.clock.advance(DAY)  # half a minute after noon
    assert timetable.fire() == {"started": 2, "missed": 1}
    assert timetable.ticks(daily) == [("03 12:00", "started")]
    assert timetable.ticks(minutely) == [("03 11:59", "missed"), ("03 12:00", "started")]
    timetable.clock.advance(DAY + 2 * MINUTE)
    assert timetable.fire() == {"missed": 2, "skipped": 1}
    assert timetable.ticks(daily)[-1] == ("04 12:00", "missed")


def test_catch_up_all_starts_the_last_ticks_one_at_a_time_in_order(timetable: Timetable) -> None:
    schedule_id = timetable.make(catch_up="all", catch_up_limit=3, overlap="queue")
    timetable.clock.advance(10 * MINUTE)
    assert timetable.fire() == {"missed": 1, "started": 1, "waiting": 2}
    outcomes = ["missed", "started", "waiting", "waiting"]
    assert timetable.ticks(schedule_id) == [(f"02 12:{7 + n:02}", outcome) for n, outcome in enumerate(outcomes)]
    assert timetable.wait() == 0
    for done in range(3):
        assert len(timetable.jobs(schedule_id)) == done + 1
        timetable.end(timetable.jobs(schedule_id)[-1])
        assert timetable.wait() == (1 if done < 2 else 0)
        assert timetable.wait() == 0
    assert [outcome for _, outcome in timetable.ticks(schedule_id)] == ["missed"] + 3 * ["started"]


# Overlap with an open job


def test_overlap_skip_drops_a_tick_while_a_job_is_open(timetable: Timetable) -> None:
    schedule_id = timetable.make(overlap="skip")
    for _ in range(3):
        timetable.clock.advance(MINUTE)
        timetable.fire()
    assert [outcome for _, outcome in timetable.ticks(schedule_id)] == ["started", "skipped", "skipped"]
    timetable.end(timetable.jobs(schedule_id)[0])
    timetable.clock.advance(MINUTE)
    assert timetable.fire() == {"started": 1}


def test_overlap_replace_ends_the_previous_job_first(timetable: Timetable) -> None:
    schedule_id = timetable.make(overlap="replace")
    timetable.clock.advance(MINUTE)
    timetable.fire()
    timetable.clock.advance(MINUTE)
    assert timetable.fire() == {"started": 1}  # the first had not begun
    first, second = timetable.jobs(schedule_id)
    assert (first.state, second.state) == ("cancelled", "queued")
    timetable.run(second)
    for _ in range(2):
        timetable.clock.advance(MINUTE)
        assert timetable.fire() == {"waiting": 1}  # the second has a cancel request and still runs
    second = timetable.ledger.row(second.id)
    assert (second.state, second.cancel_requested_at is not None) == ("running", True)
    assert timetable.wait() == 0
    timetable.db.transaction(finish, [end_of(second.id, 1, "cancelled")])
    assert timetable.wait() == 1
    assert [outcome for _, outcome in timetable.ticks(schedule_id)] == ["started", "started", "skipped", "started"]
    assert len(timetable.jobs(schedule_id)) == 3


def test_overlap_queue_skips_ticks_over_its_limit(timetable: Timetable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing, "MAX_WAITING", 2)
    schedule_id = timetable.make(overlap="queue")
    for _ in range(5):
        timetable.clock.advance(MINUTE)
        timetable.fire()
    outcomes = [outcome for _, outcome in timetable.ticks(schedule_id)]
    assert outcomes == ["started", "waiting", "waiting", "skipped", "skipped"]


def test_paused_schedule_starts_nothing_and_resumes_from_now(timetable: Timetable) -> None:
    schedule_id = timetable.make(overlap="queue")
    for _ in range(2):
        timetable.clock.advance(MINUTE)
        timetable.fire()
    timetable.db.transaction(store.pause, T, schedule_id)
    timetable.end(timetable.jobs(schedule_id)[0])
    timetable.clock.advance(DAY)
    assert (timetable.fire(), timetable.wait()) == ({}, 0)
    timetable.db.transaction(store.resume, T, schedule_id)
    assert (timetable.fire(), timetable.wait()) == ({}, 1)
    timetable.clock.advance(MINUTE)
    assert timetable.fire() == {"waiting": 1}
    assert [at for at, _ in timetable.ticks(schedule_id)] == ["02 12:01", "02 12:02", "03 12:03"]


# Clocks


def test_clock_set_back_repeats_no_tick_and_loses_none(timetable: Timetable) -> None:
    schedule_id = timetable.make()

    def minute() -> None:
        timetable.clock.advance(MINUTE)
        timetable.fire()
        for job in timetable.jobs(schedule_id):
            if job.state == "queued":
                timetable.end(job)

    for _ in range(5):
        minute()
    timetable.clock.advance(-3 * MINUTE)
    for _ in range(5):
        minute()
    assert timetable.ticks(schedule_id) == [(f"02 12:{minute:02}", "started") for minute in range(1, 8)]


def test_clock_corrected_by_a_year_is_replanned(timetable: Timetable) -> None:
    yearly, minutely = timetable.make("y", "0 0 1 1 *"), timetable.make("m")
    timetable.clock.advance(400 * DAY)
    assert timetable.fire() == {"started": 2}
    timetable.clock.advance(-400 * DAY + MINUTE)
    for schedule_id in (yearly, minutely):
        for job in timetable.jobs(schedule_id):
            timetable.end(job)
    assert timetable.fire() == {"started": 1}
    assert [at for at, _ in timetable.ticks(minutely)] == ["02 12:01", "07 12:00"]
    # The tick of the new year was started early; it is not started again.
    timetable.clock.set(datetime(2027, 1, 1, 0, 0, 20, tzinfo=UTC))
    timetable.fire()
    assert [job.created_at.year for job in timetable.jobs(yearly)] == [2027]


def test_schedulers_with_different_clocks_start_each_tick_once(timetable: Timetable) -> None:
    schedule_id = timetable.make()
    for _ in range(4):
        timetable.clock.advance(MINUTE)
        for skew in (3 * MINUTE, timedelta(0)):
            timetable.db.transaction(firing.replan, timetable.clock.now + skew)
            timetable.db.transaction(firing.fire, timetable.clock.now + skew)
            for job in timetable.jobs(schedule_id):
                if job.state == "queued":
                    timetable.end(job)
    ticks = timetable.ticks(schedule_id)
    assert len(ticks) == len(set(ticks)) == len(timetable.jobs(schedule_id))
    assert {at for at, _ in ticks} >= {f"02 12:{minute:02}" for minute in range(4, 8)}


@pytest.mark.parametrize("spine_env", ["sqlite"], indirect=True)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(-90, 200), st.booleans(), st.integers(0, 2)), min_size=1, max_size=8))
def test_any_clock_jumps_start_no_tick_twice_and_leave_one_open_job(
    ledger_databases: Databases, spine_env: SettingsEnv, steps: list[tuple[int, bool, int]]
) -> None:
    """Each step moves the clock, ends the job or not, and runs up to three schedulers."""
    fake_clock = FakeClock()
    try:
        timetable = Timetable(ledger_databases.empty("sqlite"), fake_clock)
        made = [
            timetable.make("skip", "*/3 * * * *", catch_up="skip"),
            timetable.make("queue", None, every_s=300, overlap="queue", catch_up="all"),
            timetable.make("replace", "7 * * * *", overlap="replace", timezone="Asia/Kathmandu"),
        ]
        for minutes, ends, others in steps:
            fake_clock.advance(minutes * MINUTE)
            for _ in range(1 + others):
                timetable.fire()
                timetable.wait()
            for schedule_id in made:
                jobs = timetable.jobs(schedule_id)
                started = [at for at, outcome in timetable.ticks(schedule_id) if outcome == "started"]
                assert len(started) == len(set(started)) == len(jobs)
                assert sum(job.state in ("queued", "running") for job in jobs) <= 1
                for job in jobs:
                    if ends and job.state in ("queued", "running"):
                        timetable.end(job)
            for schedule_id in made:
                planned = timetable.row(schedule_id).next_at
                assert planned is not None
                assert planned - fake_clock.now <= timedelta(hours=1, minutes=2)
    finally:
        clock.shift(timedelta(0))


# Rows


def test_changed_schedule_counts_from_the_change(timetable: Timetable) -> None:
    schedule_id = timetable.make(payload={"number": 1})
    timetable.clock.advance(10 * MINUTE)
    changed = timetable.db.transaction(store.change, T, schedule_id, "new", {"every_s": 120, "payload": {"number": 2}})
    assert (changed.name, changed.cron, changed.every_s, changed.payload) == ("new", None, 120, {"number": 2})
    assert changed.next_at is not None
    assert abs(changed.next_at - (timetable.clock.now + 2 * MINUTE)) < timedelta(seconds=5)
    before = changed.next_at
    same = timetable.db.transaction(store.change, T, schedule_id, None, {"overlap": "replace"})
    assert (same.next_at, same.overlap) == (before, "replace")


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"kind": "tests.none"}, "kind_unknown"),
        ({"payload": {"other": 1}}, "payload"),
        ({"cron": None}, "schedule_timing"),
        ({"cron": "x"}, "schedule_timing"),
        ({"timezone": "x"}, "timezone"),
        ({"catch_up": "all"}, "schedule_policy"),
        ({"catch_up_limit": 0}, "schedule_policy"),
        ({"overlap": "allow"}, "schedule_policy"),
    ],
)
def test_invalid_plan_is_refused_at_create_and_change(timetable: Timetable, how: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        timetable.make(**how)
    assert refusal.value.code == code
    schedule_id = timetable.make()
    with pytest.raises(InvalidInput) as refusal:
        timetable.db.transaction(store.change, T, schedule_id, None, how)
    assert refusal.value.code == code


def test_names_are_unique_in_a_tenant_and_schedules_of_others_are_not_found(timetable: Timetable) -> None:
    schedule_id, other = timetable.make("a"), timetable.make("b")
    timetable.make("a", tenant="acme")
    with pytest.raises(Conflict):
        timetable.make("a")
    with pytest.raises(Conflict):
        timetable.db.transaction(store.change, T, other, "a", {})
    calls: list[Callable[..., Any]] = [store.pause, store.resume, store.delete, store.run_now]
    for call in calls:
        with pytest.raises(NotFound):
            timetable.db.transaction(call, "acme", schedule_id)
    timetable.db.transaction(store.delete, T, schedule_id)
    assert timetable.make("a") > other


def test_run_now_is_a_conflict_while_a_job_is_open(timetable: Timetable) -> None:
    schedule_id = timetable.make("a")
    timetable.db.transaction(store.pause, T, schedule_id)
    job = timetable.db.transaction(store.run_now, T, schedule_id)
    assert [row.id for row in timetable.jobs(schedule_id)] == [job.id]
    with pytest.raises(Conflict, match=job.id):
        timetable.db.transaction(store.run_now, T, schedule_id)
    timetable.db.transaction(commands.cancel, T, job.id)
    timetable.db.transaction(store.run_now, T, schedule_id)
    assert len(timetable.jobs(schedule_id)) == 2


def test_declare_creates_changes_and_drops_schedules_of_the_program(timetable: Timetable) -> None:
    first = Schedule("tests one", Chore(number=1), cron="0 3 * * *")
    second = Schedule("tests two", Chore(), every_s=600, overlap="queue")
    taken = timetable.make("tests two")
    assert timetable.db.transaction(store.declare, [first, second]) == 2
    assert timetable.db.transaction(store.declare, [first, second]) == 0
    rows = timetable.db.read(store.list_schedules, T, 10)
    assert [(row.name, row.in_code, row.every_s) for row in rows] == [
        ("tests two", True, 600),
        ("tests one", True, None),
    ]
    assert rows[0].id == taken
    schedule = rows[1]
    for call in (lambda s: store.change(s, T, schedule.id, "x", {}), lambda s: store.delete(s, T, schedule.id)):
        with pytest.raises(Conflict, match="in code"):
            timetable.db.transaction(call)
    timetable.db.transaction(store.pause, T, schedule.id)
    later = copy.copy(first)
    object.__setattr__(later, "cron", "0 4 * * *")
    assert timetable.db.transaction(store.declare, [later]) == 2
    (row,) = timetable.db.read(store.list_schedules, T, 10)
    assert (row.id, row.cron, row.next_at, row.paused_at is not None) == (schedule.id, "0 4 * * *", None, True)


def test_declaration_is_checked_at_definition() -> None:
    with pytest.raises(TypeError, match="cron"):
        Schedule("tests wrong", Chore(), cron="every day")
    Schedule("tests twice", Chore(), cron="0 0 * * *")
    Schedule("tests twice", Chore(), cron="0 0 * * *")
    with pytest.raises(TypeError, match="twice"):
        Schedule("tests twice", Chore(), cron="0 1 * * *")


def test_fired_job_is_pushed_at_once(harness: WorkerHarness, fake_clock: FakeClock) -> None:
    plan = Plan(Chore.kind, cron="* * * * *")
    schedule_id = harness.ledger.db.transaction(store.create, T, "s", plan).id
    fake_clock.advance(MINUTE)
    harness.ledger.db.transaction(firing.fire, fake_clock.now)
    (run,) = harness.take()
    assert harness.ledger.row(run.claim.id).schedule_id == schedule_id
    harness.begin(run)
    harness.end(run)
    harness.until(run.claim.id, "succeeded")
