"""Two starts are one job while it is open, throttled or debounced, also from fifty threads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.core import clock
from app.core.db import database
from app.core.errors import Conflict, InvalidInput
from app.jobs.ledger import commands
from app.jobs.ledger.enqueue import enqueue_many
from app.jobs.models import DebouncedRow, JobRow
from app.jobs.states import OPEN, State
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import Chore
from tests.unit.jobs.ledger.unique_kinds import Once, Seldom, Settled, Single, Starting, at_once


@pytest.fixture
def starting(spine_env: SettingsEnv) -> Iterator[Starting]:
    yield Starting()
    clock.shift(timedelta(0))


def test_second_start_returns_the_open_job(starting: Starting) -> None:
    first = starting.start(Once(number=1))
    second = starting.start(Once(number=2))
    assert (first.is_new, second.is_new) == (True, False)
    assert first.id == second.id
    assert starting.row(first.id).payload == {"about": "a", "number": 1}
    assert len(starting.rows(Once)) == 1


@pytest.mark.parametrize("state", OPEN)
def test_every_open_state_holds_the_key(starting: Starting, state: State) -> None:
    held = starting.ledger.put(kind=Once.kind, state=state, unique_key="a")
    assert starting.start_id(Once()) == held


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_ended_job_frees_its_key(starting: Starting, state: State) -> None:
    first = starting.start_id(Once())
    starting.run(first, state)
    second = starting.start(Once())
    assert second.is_new
    assert second.id != first


def test_on_conflict_raise_is_a_conflict_and_writes_nothing(starting: Starting) -> None:
    first = starting.start_id(Once())
    with pytest.raises(Conflict) as refusal:
        starting.start(Once(number=2), on_conflict="raise")
    assert refusal.value.code == "unique_key"
    assert refusal.value.errors[0]["job_id"] == first
    assert len(starting.rows(Once)) == 1


def test_key_is_unique_in_one_tenant_and_kind(starting: Starting) -> None:
    ids = {
        starting.start_id(Once()),
        starting.start_id(Once(), tenant="acme"),
        starting.start_id(Once(about="b")),
        starting.start_id(Chore(), unique_key="a"),
    }
    assert len(ids) == 4
    assert starting.start_id(Chore(number=9), unique_key="a") in ids


def test_jobs_without_a_key_are_never_equal(starting: Starting) -> None:
    assert starting.start_id(Once(about=None)) != starting.start_id(Once(about=None))


def test_callers_key_overrides_the_definition(starting: Starting) -> None:
    first = starting.start_id(Once(about="a"), unique_key="mine")
    assert starting.start_id(Once(about="b"), unique_key="mine") == first
    assert starting.start_id(Once(about="a")) != first


@pytest.mark.parametrize("key", ["x" * 201, "half \x7f", "line\nline"])
def test_invalid_key_is_refused(starting: Starting, key: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        starting.start(Once(about=key))
    assert refusal.value.code == "unique_key"


def test_repeated_keys_in_one_call_are_one_job_each(starting: Starting) -> None:
    jobs = [Once(about=about, number=number) for number, about in enumerate(["b", "a", "b", None, "c", "a"])]
    open_one = starting.start_id(Once(about="c", number=99))
    rows = database().transaction(enqueue_many, jobs, tenant="default")
    ids = [row.id for row in rows]
    assert ids[0] == ids[2]
    assert ids[1] == ids[5]
    assert ids[4] == open_one
    assert len(set(ids)) == 4
    assert [row.is_new for row in rows] == [True, True, True, True, False, True]
    assert starting.row(ids[0]).payload["number"] == 0


def test_same_start_from_fifty_threads_is_one_job(starting: Starting) -> None:
    rows = at_once(50, lambda number: starting.start(Once(number=number)))
    assert len({row.id for row in rows}) == 1
    assert [row.is_new for row in rows].count(True) == 1
    assert len(starting.rows(Once)) == 1


def test_calls_with_the_same_keys_in_other_orders_do_not_deadlock(starting: Starting) -> None:
    abouts = [str(number) for number in range(20)]

    def start(number: int) -> list[str]:
        turned = abouts if number % 2 else abouts[::-1]
        rows = database().transaction(enqueue_many, [Once(about=about) for about in turned], tenant="default")
        return [row.id for row in rows]

    ids = {job_id for ids_of_call in at_once(8, start) for job_id in ids_of_call}
    assert len(ids) == len(starting.rows(Once)) == 20


def test_concurrent_starts_and_ends_leave_no_job_open(starting: Starting) -> None:
    def start_and_run(number: int) -> str:
        row = starting.start(Once(number=number))
        if row.is_new:
            starting.run(row.id)
        return row.id

    ids = set(at_once(16, start_and_run))
    assert {row.id for row in starting.rows(Once)} == ids
    assert starting.rows(Once, only_open=True) == []


def test_retry_is_a_conflict_while_another_job_has_the_key(starting: Starting) -> None:
    first = starting.start_id(Once())
    starting.run(first, "failed")
    second = starting.start_id(Once())
    with pytest.raises(Conflict) as refusal:
        database().transaction(commands.retry, "default", first)
    assert refusal.value.code == "unique_key"
    starting.run(second)
    assert database().transaction(commands.retry, "default", first).state == "queued"


# Throttle


def test_throttled_key_returns_its_job_until_the_throttle_ends(starting: Starting) -> None:
    first = starting.start_id(Seldom())
    assert starting.start_id(Seldom(number=2)) == first
    starting.run(first)
    assert starting.start_id(Seldom(number=3)) == first
    with pytest.raises(Conflict):
        starting.start(Seldom(number=3), on_conflict="raise")
    assert starting.start_id(Seldom(about="b")) != first
    starting.advance(61)
    second = starting.start(Seldom(number=4))
    assert second.is_new
    assert starting.start_id(Seldom(number=5)) == second.id != first


def test_open_job_keeps_its_key_after_the_throttle(starting: Starting) -> None:
    first = starting.start_id(Seldom())
    starting.advance(61)
    assert starting.start_id(Seldom()) == first
    starting.run(first)
    assert starting.start_id(Seldom()) == first
    starting.advance(61)
    assert starting.start(Seldom()).is_new


def test_throttle_of_a_deleted_job_is_free(starting: Starting) -> None:
    first = starting.start_id(Seldom())
    starting.run(first)
    database().transaction(lambda session: session.execute(sa.delete(JobRow).where(JobRow.id == first)))
    second = starting.start(Seldom())
    assert second.is_new
    assert starting.start_id(Seldom()) == second.id


def test_throttle_without_a_key_applies_to_the_tenant(starting: Starting) -> None:
    first = starting.start_id(Single(number=1))
    assert starting.start_id(Single(number=2)) == first
    assert starting.start_id(Single(number=2), tenant="acme") != first


def test_throttled_start_from_twenty_threads_is_one_job(starting: Starting) -> None:
    starting.run(starting.start_id(Seldom(number=99)))
    starting.advance(61)
    ids = at_once(20, lambda number: starting.start_id(Seldom(number=number)))
    assert len(set(ids)) == 1
    assert len(starting.rows(Seldom)) == 2


# Debounce


def test_debounced_job_starts_later_with_the_last_payload(starting: Starting) -> None:
    first = starting.start(Settled(number=1))
    assert first.state == "scheduled"
    assert first.due_at == first.created_at + timedelta(seconds=10)
    starting.advance(6)
    assert starting.start_id(Settled(number=2)) == first.id
    row = starting.row(first.id)
    assert row.payload["number"] == 2
    assert timedelta(seconds=15) < row.due_at - row.created_at < timedelta(seconds=25)
    assert starting.start_id(Settled(about="b")) != first.id


def test_debounced_job_waits_at_most_max_wait(starting: Starting) -> None:
    first = starting.start_id(Settled(number=0))
    for number in range(1, 6):
        starting.advance(6)
        assert starting.start_id(Settled(number=number)) == first
    row = starting.row(first)
    assert row.due_at == row.created_at + timedelta(seconds=25)
    starting.make_due()
    assert starting.claim(first).payload["number"] == 5


def test_due_job_takes_a_newer_payload(starting: Starting) -> None:
    first = starting.start_id(Settled(number=1))
    starting.advance(11)
    starting.make_due()
    due_at = starting.row(first).due_at
    assert starting.start_id(Settled(number=2)) == first
    assert (starting.row(first).state, starting.row(first).due_at) == ("queued", due_at)
    assert starting.claim(first).payload["number"] == 2


@pytest.mark.parametrize("ended", ["succeeded", "failed", "retrying"])
def test_payload_that_arrives_during_a_run_gets_another_run(starting: Starting, ended: State) -> None:
    """Only one run at a time; the last payload is not lost and resets the tries."""
    first = starting.start_id(Settled(number=1))
    starting.advance(11)
    starting.make_due()
    claim = starting.claim(first)
    for number in (2, 3):
        assert starting.start_id(Settled(number=number)) == first
    assert starting.row(first).payload["number"] == 1
    assert starting.end(claim, ended, tries=2, result={"of": 1}) == "retrying"
    row = starting.row(first)
    assert (row.payload["number"], row.tries, row.finished_at, row.result) == (3, 0, None, None)
    assert [attempt.outcome for attempt in starting.ledger.attempts(first)] == [ended]
    starting.advance(11)
    starting.make_due()
    assert starting.run(first) == "succeeded"
    assert starting.start(Settled(number=4)).is_new


def test_handed_back_run_continues_with_the_newer_payload(starting: Starting) -> None:
    first = starting.start_id(Settled(number=1))
    starting.advance(11)
    starting.make_due()
    claim = starting.claim(first)
    starting.start(Settled(number=2))
    assert starting.end(claim, "queued") == "queued"
    assert starting.claim(first).payload["number"] == 2


def test_lost_claim_consumes_no_payload(starting: Starting) -> None:
    first = starting.start_id(Settled(number=1))
    starting.advance(11)
    starting.make_due()
    lost = starting.claim(first)
    starting.start(Settled(number=2))
    starting.ledger.db.transaction(
        lambda session: session.execute(sa.update(JobRow).values(fence=JobRow.fence + 1).where(JobRow.id == first))
    )
    assert starting.end(lost) is None
    held = lost._replace(fence=lost.fence + 1)
    assert starting.end(held) == "retrying"
    assert starting.row(first).payload["number"] == 2


def test_cancel_ends_the_job_and_drops_its_debounced_run(starting: Starting) -> None:
    first = starting.start_id(Settled(number=1))
    starting.advance(11)
    starting.make_due()
    claim = starting.claim(first)
    starting.start(Settled(number=2))
    database().transaction(commands.cancel, "default", first)
    assert starting.end(claim, "cancelled") == "cancelled"
    assert database().transaction(commands.retry, "default", first).payload["number"] == 2
    assert database().read(lambda session: session.scalars(sa.select(DebouncedRow)).all()) == []


def test_last_payload_of_a_debounce_storm_is_run_last(starting: Starting) -> None:
    """One job is open at a time in any interleaving of starts and runs."""
    seen: list[int] = []

    def storm(number: int) -> None:
        for step in range(15):
            starting.start(Settled(number=100 * step + number))
            if number == 0 and step % 3 == 2:
                starting.advance(11)
                seen.extend(claim.payload["number"] for claim in starting.run_due())

    at_once(6, storm)
    last = starting.start_id(Settled(number=9999))
    for _ in range(3):
        starting.advance(26)
        seen.extend(claim.payload["number"] for claim in starting.run_due())
    assert seen[-1] == 9999
    assert starting.row(last).state == "succeeded"
    assert starting.rows(Settled, only_open=True) == []
    assert len(seen) == len(set(seen))


def test_on_conflict_raise_keeps_the_debounced_payload(starting: Starting) -> None:
    first = starting.start_id(Settled(number=1))
    with pytest.raises(Conflict):
        starting.start(Settled(number=2), on_conflict="raise")
    assert starting.row(first).payload["number"] == 1
