"""Orders to workers hold from their commit, even before the worker has read them."""

from __future__ import annotations

from typing import Any

import pytest

from app.core import redis
from app.core.db import database
from app.core.errors import Conflict, NotFound
from app.core.ids import uuid7
from app.jobs.ledger import claims, workers
from app.jobs.relay.relay import Relay
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import WORKER, Chore, Ledger, WorkerHarness


def give_order(ledger: Ledger, order: workers.Order, worker_id: str = WORKER) -> str:
    return str(ledger.db.transaction(workers.order, worker_id, order)["state"])


def test_paused_worker_claims_nothing_until_resumed(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    assert [give_order(ledger_of, "pause") for _ in range(2)] == ["paused", "paused"]
    assert ledger_of.db.transaction(claims.claim, [job_id], WORKER) == []
    assert ledger_of.db.transaction(workers.heartbeat, WORKER)
    assert give_order(ledger_of, "resume") == "running"
    assert len(ledger_of.db.transaction(claims.claim, [job_id], WORKER)) == 1


def test_orders_to_a_draining_or_dead_worker_are_a_conflict(ledger_of: Ledger) -> None:
    assert give_order(ledger_of, "drain") == "draining"
    orders: tuple[workers.Order, ...] = ("pause", "resume", "drain")
    for order in orders[:2]:
        with pytest.raises(Conflict, match="draining"):
            give_order(ledger_of, order)
    ledger_of.db.transaction(workers.mark_dead, WORKER, "gone")
    for order in orders:
        with pytest.raises(Conflict, match="dead"):
            give_order(ledger_of, order)
    for unknown in (uuid7(), "x"):
        with pytest.raises(NotFound):
            give_order(ledger_of, "pause", unknown)


def test_list_workers_counts_their_running_jobs(ledger_of: Ledger) -> None:
    other = ledger_of.worker(uuid7())
    ledger_of.put_many(3, state="running", worker_id=other)
    ledger_of.put_many(1, state="succeeded", worker_id=other)
    rows = ledger_of.db.read(workers.list_workers, limit=9)
    assert [(worker["id"], worker["running"]) for worker in rows] == [(other, 3), (WORKER, 0)]
    assert {"host", "pid", "queues", "threads", "silent_s", "beat_at", "version"} <= rows[0].keys()
    assert ledger_of.db.read(workers.list_workers, limit=9, before_id=other)[0]["id"] == WORKER
    give_order(ledger_of, "pause")
    paused = ledger_of.db.read(workers.list_workers, states=["paused"], limit=9)
    assert [worker["id"] for worker in paused] == [WORKER]


def test_paused_worker_hands_back_jobs_that_have_not_started(harness: WorkerHarness) -> None:
    """Started jobs go on; fetched and claimed jobs are free for other workers at once."""
    begun, waiting = harness.enqueue(Chore(), Chore())
    first, second = harness.take(2)
    harness.begin(first)
    harness.ledger.db.transaction(workers.order, harness.process.id, "pause")
    state, _ = database().read(workers.read_orders, harness.process.id)
    harness.process.apply_order(state)
    harness.until(waiting, "queued")
    assert (harness.state(begun), harness.process.health()["status"]) == ("running", "paused")
    (late,) = harness.enqueue(Chore())
    Relay().tick()
    assert harness.process.fetcher.fetch() == []
    assert harness.unacked() == [first.redis_id]
    harness.end(first)
    harness.until(begun, "succeeded")
    harness.ledger.db.transaction(workers.order, harness.process.id, "resume")
    harness.process.apply_order("running")
    assert {run.claim.id for run in harness.take(2)} == {waiting, late}
    assert second.ended


@pytest.mark.parametrize("state", ["dead", "stopped", None])
def test_state_that_is_no_order_changes_nothing(harness: WorkerHarness, state: str | None) -> None:
    """A worker marked dead by mistake works again and is not paused forever."""
    harness.process.apply_order(state)
    assert not harness.process.fetcher.is_paused
    harness.process.apply_order("paused")
    harness.process.apply_order(state)
    assert harness.process.fetcher.is_paused


def test_order_is_published_to_its_worker(harness: WorkerHarness) -> None:
    with redis.subscription() as pubsub:
        pubsub.subscribe(redis.ORDERS_CHANNEL)
        pubsub.get_message(timeout=1)
        harness.ledger.db.transaction(workers.order, harness.process.id, "drain")
        message: Any = wait_until(lambda: pubsub.get_message(timeout=0.1), what="the order notice")
    assert message["data"] == harness.process.id
    harness.process.nudge(uuid7())
    assert not harness.process.nudged.is_set()
    harness.process.nudge(harness.process.id)
    assert harness.process.nudged.is_set()


def test_paused_worker_registers_as_paused(ledger_of: Ledger) -> None:
    """A suspended worker that was marked dead gets a new id and stays paused."""
    worker_id = uuid7()
    ledger_of.db.transaction(workers.register, worker_id, ["default"], 8, None, paused=True)
    assert ledger_of.db.read(workers.read_orders, worker_id) == ("paused", [])
