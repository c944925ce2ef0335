"""Workers as people steer them: an order holds from its commit on, whether the worker has heard of it or not."""

from __future__ import annotations

from typing import Any

import pytest

from app.core import redis
from app.core.db import database
from app.core.errors import Conflict, NotFound
from app.core.ids import uuid7
from app.jobs.ledger import claims as book
from app.jobs.ledger import workers
from app.jobs.relay.relay import Relay
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import WORKER, Chore, Desk, Ledger


def order(ledger: Ledger, what: workers.Order, worker_id: str = WORKER) -> str:
    return str(ledger.db.transaction(workers.order, worker_id, what)["state"])


def test_a_paused_worker_claims_nothing_until_it_is_resumed(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    assert [order(ledger_of, "pause") for _ in range(2)] == ["paused", "paused"]
    assert ledger_of.db.transaction(book.claim, [job_id], WORKER) == []
    assert ledger_of.db.transaction(workers.heartbeat, WORKER)
    assert order(ledger_of, "resume") == "running"
    assert len(ledger_of.db.transaction(book.claim, [job_id], WORKER)) == 1


def test_a_draining_worker_cannot_go_back_and_one_that_is_gone_obeys_nobody(ledger_of: Ledger) -> None:
    assert order(ledger_of, "drain") == "draining"
    orders: tuple[workers.Order, ...] = ("pause", "resume", "drain")
    for what in orders[:2]:
        with pytest.raises(Conflict, match="draining"):
            order(ledger_of, what)
    ledger_of.db.transaction(workers.mark_dead, WORKER, "gone")
    for what in orders:
        with pytest.raises(Conflict, match="dead"):
            order(ledger_of, what)
    for unknown in (uuid7(), "x"):
        with pytest.raises(NotFound):
            order(ledger_of, "pause", unknown)


def test_workers_are_listed_with_what_they_hold(ledger_of: Ledger) -> None:
    other = ledger_of.worker(uuid7())
    ledger_of.put_many(3, state="running", worker_id=other)
    ledger_of.put_many(1, state="succeeded", worker_id=other)
    found = ledger_of.db.read(workers.list_workers, limit=9)
    assert [(worker["id"], worker["running"]) for worker in found] == [(other, 3), (WORKER, 0)]
    assert {"host", "pid", "queues", "threads", "silent_s", "beat_at", "version"} <= found[0].keys()
    assert ledger_of.db.read(workers.list_workers, limit=9, before_id=other)[0]["id"] == WORKER
    order(ledger_of, "pause")
    paused = ledger_of.db.read(workers.list_workers, states=["paused"], limit=9)
    assert [worker["id"] for worker in paused] == [WORKER]


def test_a_worker_that_obeys_a_pause_gives_back_what_has_not_begun(desk: Desk) -> None:
    """What runs goes on; what was fetched or claimed is another worker's at once."""
    begun, waiting = desk.enqueue(Chore(), Chore())
    first, second = desk.take(2)
    desk.begin(first)
    desk.ledger.db.transaction(workers.order, desk.process.id, "pause")
    state, _ = database().read(workers.read_orders, desk.process.id)
    desk.process.obey(state)
    desk.until(waiting, "queued")
    assert (desk.state(begun), desk.process.health()["status"]) == ("running", "paused")
    (late,) = desk.enqueue(Chore())
    Relay().tick()
    assert desk.process.intake.next() == []
    assert desk.unacked() == [first.redis_id]
    desk.end(first)
    desk.until(begun, "succeeded")
    desk.ledger.db.transaction(workers.order, desk.process.id, "resume")
    desk.process.obey("running")
    assert {run.claim.id for run in desk.take(2)} == {waiting, late}
    assert second.ended


@pytest.mark.parametrize("state", ["dead", "stopped", None])
def test_what_is_no_order_changes_nothing(desk: Desk, state: str | None) -> None:
    """A worker that was declared dead by mistake comes back to work, not paused for ever."""
    desk.process.obey(state)
    assert not desk.process.intake.is_paused
    desk.process.obey("paused")
    desk.process.obey(state)
    assert desk.process.intake.is_paused


def test_an_order_is_told_to_the_worker_it_is_for(desk: Desk) -> None:
    with redis.subscription() as heard:
        heard.subscribe(redis.ORDERS_CHANNEL)
        heard.get_message(timeout=1)
        desk.ledger.db.transaction(workers.order, desk.process.id, "drain")
        message: Any = wait_until(lambda: heard.get_message(timeout=0.1), what="the order to be heard")
    assert message["data"] == desk.process.id
    desk.process.nudge(uuid7())
    assert not desk.process.nudged.is_set()
    desk.process.nudge(desk.process.id)
    assert desk.process.nudged.is_set()


def test_a_paused_worker_registers_paused_again(ledger_of: Ledger) -> None:
    """One that was declared dead while it stood still comes back with another name, not with another will."""
    worker_id = uuid7()
    ledger_of.db.transaction(workers.register, worker_id, ["default"], 8, None, paused=True)
    assert ledger_of.db.read(workers.read_orders, worker_id) == ("paused", [])
