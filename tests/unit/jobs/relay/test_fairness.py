"""Order of admission: priority, then the share of each tenant, the one with the fewest running jobs first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import clock, redis
from app.core.db import database
from app.jobs.admission import limits
from app.jobs.admission.push import DEFAULT_WINDOW, QueuedRef
from app.jobs.ledger import limit_commands
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from app.jobs.lua import LUA
from app.jobs.relay import fairness
from app.jobs.relay.fairness import MAX_TENANTS, _distribute
from app.jobs.relay.relay import Relay
from app.jobs.worker.run import Run
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import WORKER, Chore, Ledger, WorkerHarness

on_sqlite = pytest.mark.parametrize("spine_env", ["sqlite"], indirect=True)


def admit(rows: Ledger, room: int, *, promoted_room: int = 0) -> list[QueuedRef]:
    return rows.db.transaction(fairness.admit, "default", room, promoted_room=promoted_room)


def tenants(refs: list[QueuedRef]) -> Counter[str]:
    return Counter(ref.tenant for ref in refs)


def fill(rows: Ledger, tenant: str, running: int = 0, fed: int = 0) -> None:
    """Insert running jobs of a tenant and jobs in the window."""
    for _ in range(running):
        rows.put(tenant=tenant, state="running", worker_id=WORKER, fence=1)
    for _ in range(fed):
        rows.put(tenant=tenant, admitted_at=clock.now())


# The order of admission


def test_tenants_take_turns_and_unused_places_go_to_others(ledger_of: Ledger) -> None:
    ledger_of.put_many(100, tenant="a")
    ledger_of.put_many(100, tenant="b")
    few = ledger_of.put_many(5, tenant="c")
    refs = admit(ledger_of, 31)
    assert tenants(refs) == {"a": 13, "b": 13, "c": 5}
    assert [ref.id for ref in refs if ref.tenant == "c"] == few
    assert tenants(refs[:6]) == {"a": 2, "b": 2, "c": 2}
    assert not any(ref.promoted for ref in refs)


def test_single_tenant_gets_the_whole_window_oldest_first(ledger_of: Ledger) -> None:
    ids = ledger_of.put_many(40, tenant="a")
    assert [ref.id for ref in admit(ledger_of, 30)] == ids[:30]
    assert [ref.id for ref in admit(ledger_of, 30)] == ids[30:]


def test_shares_follow_the_weights(ledger_of: Ledger) -> None:
    ledger_of.db.transaction(limit_commands.set_limits, "tenant", "big", running_cap=None, weight=3)
    ledger_of.put_many(100, tenant="big")
    ledger_of.put_many(100, tenant="small")
    refs = admit(ledger_of, 40)
    assert tenants(refs) == {"big": 30, "small": 10}
    assert tenants(refs[:8]) == {"big": 6, "small": 2}


def test_running_and_admitted_jobs_count_towards_the_share(ledger_of: Ledger) -> None:
    fill(ledger_of, "a", running=8, fed=12)
    ledger_of.put_many(50, tenant="a")
    ledger_of.put_many(50, tenant="b")
    assert tenants(admit(ledger_of, 30)) == {"a": 5, "b": 25}


def test_priority_precedes_shares(ledger_of: Ledger) -> None:
    low = ledger_of.put_many(10, tenant="a")
    high = ledger_of.put_many(5, tenant="b", priority=5)
    lowest = ledger_of.put_many(5, tenant="c", priority=-5)
    refs = admit(ledger_of, 18)
    assert [ref.id for ref in refs] == [*high, *low, *lowest[:3]]
    assert [ref.promoted for ref in refs] == [True] * 5 + [False] * 13


def test_kinds_of_one_tenant_are_admitted_by_age(ledger_of: Ledger) -> None:
    ids = [ledger_of.put(kind=f"tests.kind{number % 3}") for number in range(12)]
    assert [ref.id for ref in admit(ledger_of, 7)] == ids[:7]


def test_tenants_beyond_max_tenants_are_admitted_in_turn(ledger_of: Ledger) -> None:
    count = MAX_TENANTS + 100
    for number in range(count):
        ledger_of.put(tenant=f"t{number:04}")
    batches = [admit(ledger_of, count) for _ in range(2)]
    assert [len(refs) for refs in batches] == [MAX_TENANTS, 100]


def test_every_job_is_admitted_once(ledger_of: Ledger) -> None:
    ids = [
        job_id
        for tenant, kind, priority in [("a", "x", 0), ("a", "y", 1), ("b", "x", 0), ("c", "y", -1)]
        for job_id in ledger_of.put_many(9, tenant=tenant, kind=kind, priority=priority)
    ]
    seen = [ref.id for _ in range(12) for ref in admit(ledger_of, 5)]
    assert sorted(seen) == sorted(ids)


@given(
    room=st.integers(0, 60),
    asked=st.dictionaries(
        st.sampled_from("abcdef"), st.tuples(st.integers(0, 30), st.integers(1, 9), st.integers(0, 40))
    ),
)
def test_places_go_to_the_tenant_with_the_least_for_its_weight(
    room: int, asked: dict[str, tuple[int, int, int]]
) -> None:
    """All places are given while jobs wait, and none goes past a waiting tenant that holds less for its weight."""
    given_ = _distribute(room, asked)
    assert sum(given_.values()) == min(room, sum(limit for _, _, limit in asked.values()))
    for taker, count in given_.items():
        held, weight, limit = asked[taker]
        assert 0 < count <= limit
        for other, (other_held, other_weight, other_limit) in asked.items():
            if given_.get(other, 0) < other_limit:
                last = (held + count - 1) / weight
                assert last <= (other_held + given_.get(other, 0)) / other_weight


# Limits


@pytest.mark.parametrize(("scope", "name"), [("tenant", "a"), ("kind", "tests.shut")])
def test_paused_jobs_are_skipped(ledger_of: Ledger, scope: limits.Scope, name: str) -> None:
    ledger_of.put_many(10, tenant="a", kind="tests.shut")
    other = ledger_of.put_many(3, tenant="b")
    ledger_of.db.transaction(limit_commands.pause, scope, name)
    assert [ref.id for ref in admit(ledger_of, 10)] == other
    ledger_of.db.transaction(limit_commands.pause, "queue", "default")
    assert admit(ledger_of, 10) == []


@pytest.mark.parametrize(("scope", "name"), [("tenant", "a"), ("kind", Chore.kind), ("queue", "default")])
def test_admission_respects_concurrency_caps(ledger_of: Ledger, scope: limits.Scope, name: str) -> None:
    fill(ledger_of, "a", running=2, fed=1)
    ledger_of.put_many(10, tenant="a")
    ledger_of.db.transaction(limit_commands.set_limits, scope, name, running_cap=5)
    assert len(admit(ledger_of, 10)) == 2
    assert admit(ledger_of, 10) == []


def test_capped_kind_leaves_its_places_to_others(ledger_of: Ledger) -> None:
    ledger_of.db.transaction(limit_commands.set_limits, "tenant", "a", running_cap=2)
    ledger_of.put_many(50, tenant="a")
    ledger_of.put_many(50, tenant="b")
    assert tenants(admit(ledger_of, 40)) == {"a": 2, "b": 38}


# Coming early


def test_tenant_absent_from_a_full_window_is_promoted_up_to_its_running_share(ledger_of: Ledger) -> None:
    fill(ledger_of, "a", running=8, fed=64)
    ledger_of.put_many(100, tenant="a")
    ledger_of.put_many(20, tenant="b")
    refs = admit(ledger_of, 0)
    assert tenants(refs) == {"b": 4}
    assert all(ref.promoted for ref in refs)
    assert admit(ledger_of, 0) == []


def test_tenant_that_runs_its_share_waits_for_room(ledger_of: Ledger) -> None:
    fill(ledger_of, "a", running=4, fed=64)
    fill(ledger_of, "b", running=4)
    ledger_of.put_many(20, tenant="b")
    assert admit(ledger_of, 0) == []


def test_priority_enters_a_full_window_in_small_numbers(ledger_of: Ledger) -> None:
    fill(ledger_of, "a", running=8, fed=64)
    ledger_of.put_many(10, tenant="a")
    urgent = ledger_of.put_many(50, tenant="a", priority=1)
    refs = admit(ledger_of, 0, promoted_room=16)
    assert [(ref.id, ref.promoted) for ref in refs] == [(job_id, True) for job_id in urgent[:16]]


def test_the_first_job_of_a_tenant_overtakes_a_full_window_without_any_relay(harness: WorkerHarness) -> None:
    harness.enqueue(*[Chore(number=number) for number in range(3 * DEFAULT_WINDOW)])
    assert len(harness.window()) == DEFAULT_WINDOW
    first = database().transaction(enqueue, Chore(), tenant="quiet")
    second = database().transaction(enqueue, Chore(), tenant="quiet")
    assert (first.admitted_at is not None, second.admitted_at) == (True, None)
    assert first.id in {run.claim.id for run in harness.take(4)}


def test_the_first_job_of_a_tenant_overtakes_a_window_with_room(harness: WorkerHarness) -> None:
    """The enqueueing process learns only with its push that others wait; then the id is moved."""
    harness.enqueue(*[Chore(number=number) for number in range(20)])
    rows = database().transaction(enqueue_many, [Chore(), Chore()], tenant="quiet")
    taken = [run.claim.id for run in harness.take(4)]
    assert rows[0].id in taken
    assert rows[1].id not in taken
    assert len(harness.window()) == 22 - 4


def test_jobs_behind_others_in_the_window_are_promoted_up_to_the_share(ledger_of: Ledger) -> None:
    fill(ledger_of, "a", running=8, fed=20)
    assert ledger_of.db.read(fairness.contended) == []
    fill(ledger_of, "b", fed=20)
    assert ledger_of.db.read(fairness.contended) == ["default"]
    assert tenants(ledger_of.db.read(fairness.promotable, "default")) == {"b": 4}


@on_sqlite
def test_one_start_in_eight_goes_to_jobs_that_were_not_promoted(harness: WorkerHarness) -> None:
    waiting = harness.ledger.put_many(3)
    early = harness.ledger.put_many(30)
    key = "mr:q:default"
    for job_id in (*waiting, *early):
        harness.redis.rpush(key if job_id in waiting else f"{key}.early", job_id)
    served = [redis.push().script(LUA / "fetch.lua", ["mr:q", "w", "default", 1])[1] for _ in range(33)]
    assert [served.index(job_id) for job_id in waiting] == [7, 15, 23]
    assert [job_id for job_id in served if job_id in early] == early


def test_the_next_slots_go_half_to_a_second_tenant_with_slow_jobs(harness: WorkerHarness) -> None:
    """Four slots, a hundred jobs of the first tenant, then twenty of a second."""
    harness.process.fetcher.prefetch.learn("default", 60.0)
    relay = Relay()
    relay.tick()
    harness.enqueue(*[Chore(number=number) for number in range(100)])
    running = harness.take(4)
    for run in running:
        harness.begin(run)
    database().transaction(enqueue_many, [Chore(number=number) for number in range(20)], tenant="second")
    started: Counter[str] = Counter()
    for _ in range(16):
        over = running.pop(0)
        harness.end(over)
        harness.until(over.claim.id, "succeeded")
        (run,) = _next(harness, relay)
        harness.begin(run)
        running.append(run)
        started[run.claim.tenant] += 1
        if sum(started.values()) == 2:
            assert started["second"] >= 1
    assert 5 <= started["second"] <= 12


def _next(harness: WorkerHarness, relay: Relay) -> list[Run]:
    runs: list[Run] = []

    def taken() -> bool:
        harness.process.fetcher.prefetch.learn("default", 60.0)  # slow jobs, so nothing is claimed ahead of the slots
        relay.tick()
        runs.extend(harness.process.fetcher.fetch())
        return bool(runs)

    wait_until(taken, what="the next run")
    return runs
