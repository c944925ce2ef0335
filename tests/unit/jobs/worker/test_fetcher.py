"""From an id in Redis to a claim: broken messages are put aside, lost ids are recovered, no job runs twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.core import clock
from app.core.db import database
from app.core.ids import uuid7
from app.core.redis import QUARANTINE
from app.jobs.admission import push
from app.jobs.definition import Job
from app.jobs.ledger import commands
from app.jobs.relay.relay import Relay
from app.jobs.relay.windows import MAX_UNCLAIMED
from app.jobs.worker.fetcher import PARKED_FOR, PrefetchFactor
from app.jobs.worker.process import MAX_THREAD_WAIT_S
from tests.support.databases import SettingsEnv
from tests.support.services import RedisServer
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, Outage, WorkerHarness

MakeHarness = Callable[..., WorkerHarness]
# For what no database has a part in.
on_sqlite = pytest.mark.parametrize("spine_env", ["sqlite"], indirect=True)


class Urgent(Job, kind="tests.urgent", queue="interactive"):
    """A person waits for it."""


class Someday(Job, kind="tests.someday", queue="bulk"):
    """No person waits for it."""


class Strange(Job, kind="tests.strange"):
    """A kind that the first worker does not know."""


@pytest.fixture
def moved_clock() -> Iterator[Callable[[timedelta], None]]:
    yield clock.shift
    clock.shift(timedelta(0))


def _raw(harness: WorkerHarness, redis_id: str, body: str | bytes) -> None:
    harness.redis.hset("mr:q:default.msgs", redis_id, body)
    harness.redis.rpush("mr:q:default", redis_id)


def _message(**changes: Any) -> str:
    whole = {"queue_name": "default", "actor_name": Chore.kind, "args": [uuid7()], "kwargs": {}, "options": {}}
    return json.dumps(whole | changes)


BROKEN: dict[str, str | bytes] = {
    "no JSON": "{never ending",
    "no object": "[1, 2]",
    "nothing": "",
    "null": "null",
    "no arguments": _message(args=[]),
    "arguments missing": json.dumps({"actor_name": Chore.kind, "options": {}}),
    "arguments of another type": _message(args=7),
    "options of another type": _message(options=3),
    "no job's id": _message(args=["../../etc/passwd"]),
    "an id of another type": _message(args=[{"a": 1}]),
    "bytes that are no text": b'{"args": ["\xff\xfe"]}',
    "nested without end": "[" * 100_000,
}


def test_unreadable_messages_are_quarantined_and_block_no_job(harness: WorkerHarness) -> None:
    """They lie in one batch with a good job; they end in the quarantine, and the good one runs."""
    for name, body in BROKEN.items():
        _raw(harness, name, body)
    good = harness.ledger.put(admitted_at=clock.now())
    harness.push([good])
    (run,) = harness.take()
    assert run.claim.id == good
    quarantined = [json.loads(body) for body in harness.redis.lrange(QUARANTINE, 0, -1)]
    assert {message["id"] for message in quarantined} == set(BROKEN)
    assert 0 < harness.redis.ttl(QUARANTINE) <= 7 * 86400
    harness.end(run)
    harness.until(good, "succeeded")
    harness.until_acked()
    assert harness.redis.hlen("mr:q:default.msgs") == 0


def test_an_id_without_its_body_is_dropped_and_pushed_again(
    harness: WorkerHarness, moved_clock: Callable[[timedelta], None]
) -> None:
    (job_id,) = harness.enqueue(Chore())
    harness.redis.delete("mr:q:default.msgs")
    assert harness.process.fetcher.fetch() == []
    harness.until_acked()
    assert harness.state(job_id) == "queued"
    moved_clock(MAX_UNCLAIMED + timedelta(seconds=1))
    Relay().tick()
    assert [run.claim.id for run in harness.take()] == [job_id]


def test_job_of_an_unknown_kind_is_parked_until_a_worker_has_the_kind(
    make_harness: MakeHarness, moved_clock: Callable[[timedelta], None]
) -> None:
    """And what came in the same batch runs at once."""
    old, relay = make_harness(Chore.kind), Relay()
    strange, chore = old.enqueue(Strange(), Chore())
    assert [run.claim.id for run in old.take()] == [chore]
    row = old.ledger.row(strange)
    assert (row.state, row.fence, row.admitted_at) == ("queued", 0, None)
    assert timedelta(0) < row.due_at - clock.now() <= PARKED_FOR
    relay.tick()
    assert old.window() == []
    moved_clock(PARKED_FOR)
    relay.tick()
    assert len(old.window()) == 1
    assert [run.claim.id for run in make_harness(Chore.kind, Strange.kind).take()] == [strange]


def test_ids_of_a_lost_redis_answer_are_recovered(harness: WorkerHarness) -> None:
    """The ids lie in this worker's ack set, and it has never heard of them."""
    ids = harness.enqueue(Chore(), Chore())
    taken = harness.redis.lpop("mr:q:default", 2)
    harness.redis.sadd(f"mr:q:__acks__.{harness.process.id}.default", *taken)
    assert {run.claim.id for run in harness.take(2)} == set(ids)


@on_sqlite
def test_suspended_redis_during_a_fetch_loses_no_id(redis_server: RedisServer, spine_env: SettingsEnv) -> None:
    """It runs the command when it wakes, and the client that would read the answer is gone."""
    spine_env(redis_url=redis_server.url)
    harness = WorkerHarness([Chore.kind])
    try:
        assert harness.process.fetcher.fetch() == []
        ids = harness.enqueue(Chore(), Chore())
        redis_server.process.freeze()
        assert harness.process.fetcher.fetch() == []
        redis_server.process.wake()
        wait_until(harness.unacked, what="Redis to do what it was told")
        assert {run.claim.id for run in harness.take(2)} == set(ids)
    finally:
        redis_server.process.wake()
        harness.close()


def test_a_job_pushed_thrice_runs_once(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    row = harness.ledger.row(job_id)
    push.push([row])
    (run,) = harness.take()
    push.push([row], place="head")
    assert harness.process.fetcher.fetch() == []
    harness.end(run)
    harness.until(job_id, "succeeded")
    harness.until_acked()
    assert harness.window() == []
    assert [attempt.fence for attempt in harness.ledger.attempts(job_id)] == [1]


def test_two_processes_never_claim_the_same_job(make_harness: MakeHarness) -> None:
    first, second = make_harness(threads=20), make_harness(threads=20)
    ids = first.enqueue(*[Chore(number=number) for number in range(20)])
    push.push([first.ledger.row(job_id) for job_id in ids])
    taken = [*first.process.fetcher.fetch(), *second.process.fetcher.fetch()]
    assert sorted(run.claim.id for run in taken) == sorted(ids)


def test_a_job_that_crashed_twice_runs_alone_in_its_process(harness: WorkerHarness) -> None:
    """It waits until the others have ended, and the others wait for it."""
    (beside,) = harness.enqueue(Chore())
    (running,) = harness.take()
    crashed = harness.ledger.put(crashes=2, admitted_at=clock.now())
    push.push([harness.ledger.row(crashed)])
    after, _ = harness.enqueue(Chore(), Chore())
    assert running.claim.id == beside
    seen = harness.process.fetcher.fetch()
    while seen and seen[0].claim.id != crashed:  # what came in its batch may go before it
        for run in seen:
            harness.end(run)
        seen = harness.process.fetcher.fetch()
    assert harness.state(crashed) == "queued"
    harness.end(running)
    (alone,) = harness.take()
    assert alone.claim.id == crashed
    late = harness.enqueue(Chore())
    assert harness.process.fetcher.fetch() == []
    assert len(harness.process.runs) == 1
    harness.end(alone)
    assert [run.claim.id for run in harness.take()] == late
    assert harness.state(after) in ("succeeded", "running")


def test_run_without_a_thread_for_a_second_is_handed_back_without_a_try(harness: WorkerHarness) -> None:
    waiting, begun = harness.enqueue(Chore(), Chore())
    runs = {run.claim.id: run for run in harness.take(2)}
    harness.begin(runs[begun])

    def handed_back() -> bool:
        harness.process.hand_back_waiting()
        return len(harness.process.runs) == 1

    wait_until(handed_back, timeout_s=MAX_THREAD_WAIT_S + 2, what="the second to pass")
    row = harness.until(waiting, "queued")
    assert (row.fence, row.tries, row.crashes) == (1, 0, 0)
    assert [attempt.outcome for attempt in harness.ledger.attempts(waiting)] == ["handed_back"]
    assert harness.state(begun) == "running"
    Relay().tick()
    assert [run.claim.fence for run in harness.take()] == [2]


@on_sqlite
def test_a_queue_of_slow_jobs_is_claimed_for_the_threads_a_quick_one_ahead_of_them(make_harness: MakeHarness) -> None:
    harness = make_harness(threads=3)
    harness.enqueue(*[Chore(number=number) for number in range(50)])
    harness.take(3)
    assert harness.process.fetcher.fetch() == []
    for _ in range(50):
        harness.process.fetcher.prefetch.learn("default", 0.001)
    factor = harness.process.fetcher.prefetch.of("default")
    assert 4 <= factor <= 16
    harness.take(3 * factor - 3)
    assert harness.process.fetcher.fetch() == []


def test_slow_job_resets_the_prefetch_factor() -> None:
    depth = PrefetchFactor()
    for _ in range(20):
        depth.learn("bulk", 0.001)
    assert depth.of("bulk") > depth.of("default") == 1
    depth.learn("bulk", 0.5)
    assert depth.of("bulk") == 1


@on_sqlite
def test_queues_are_served_in_their_order(make_harness: MakeHarness) -> None:
    """Interactive before default before bulk, in any order of arrival."""
    harness = make_harness(Chore.kind, Urgent.kind, Someday.kind, threads=1)
    someday, chore, urgent = harness.enqueue(Someday(), Chore(), Urgent())
    order = []
    for _ in range(3):
        (run,) = harness.take()
        order.append(run.claim.id)
        harness.end(run)
    assert order == [urgent, chore, someday]


def test_a_job_cancelled_in_the_window_is_never_claimed(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    database().transaction(commands.cancel, "default", job_id)
    assert harness.process.fetcher.fetch() == []
    harness.until_acked()
    assert harness.state(job_id) == "cancelled"


def test_stopped_worker_claims_nothing_and_hands_back_waiting_runs(harness: WorkerHarness) -> None:
    first, second = harness.enqueue(Chore(), Chore())
    runs = {run.claim.id: run for run in harness.take(2)}
    harness.begin(runs[first])
    harness.process.stop_fetching()
    assert harness.until(second, "queued").tries == 0
    harness.enqueue(Chore())
    assert harness.process.fetcher.fetch() == []
    assert harness.state(first) == "running"


@pytest.mark.parametrize("spine_env", ["postgresql"], indirect=True)
def test_ids_fetched_before_a_database_outage_are_claimed_after_it(harness: WorkerHarness, outage: Outage) -> None:
    ids = harness.enqueue(Chore(), Chore())
    with outage():
        assert harness.process.fetcher.fetch() == []
        assert harness.process.fetcher.problem
        assert len(harness.unacked()) == 2
    assert {run.claim.id for run in harness.take(2)} == set(ids)
    assert harness.process.fetcher.problem == ""


@on_sqlite
def test_stop_gives_unclaimed_ids_back(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    taken = harness.redis.lpop("mr:q:default")
    harness.redis.sadd(f"mr:q:__acks__.{harness.process.id}.default", taken)
    harness.process.stop_fetching()
    harness.process.fetcher.give_back()
    assert harness.window() == [f"{job_id}:0"]
    assert harness.unacked() == []
