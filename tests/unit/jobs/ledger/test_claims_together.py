"""Concurrent threads on one ledger: claims are disjoint, holds block losses, batches never deadlock."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import Cancelled, Stale
from app.core.ids import uuid7
from app.jobs.ledger import admissions, claims, commands, ends, timers, workers
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import End
from app.jobs.models import WorkerRow
from app.jobs.relay import fairness
from app.jobs.states import State
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import WORKER, Ledger, end_of


def _claim_job(ledger_of: Ledger) -> Claim:
    (claim,) = ledger_of.db.transaction(claims.claim, [ledger_of.put()], WORKER)
    return claim


def _domain_write(session: Session, claim: Claim, mark: str) -> None:
    """Run a job's transaction: write, hold, write again."""
    workers.register(session, mark, [], 1, None)
    session.flush()
    claims.hold(session, claim)
    workers.set_state(session, mark, "draining")


def _lose(ledger_of: Ledger, claim: Claim) -> None:
    ledger_of.db.transaction(workers.mark_dead, WORKER, "killed")


def _lose_and_claim_again(ledger_of: Ledger, claim: Claim) -> None:
    _lose(ledger_of, claim)
    ledger_of.db.transaction(claims.claim, [claim.id], ledger_of.worker(uuid7()))


def _ask_to_stop(ledger_of: Ledger, claim: Claim) -> None:
    ledger_of.db.transaction(commands.cancel, "default", claim.id)


def _end(ledger_of: Ledger, claim: Claim) -> None:
    ledger_of.db.transaction(ends.finish, [end_of(claim.id, claim.fence, "succeeded")])


@pytest.mark.parametrize(
    ("before", "error"), [(_lose, Stale), (_lose_and_claim_again, Stale), (_end, Stale), (_ask_to_stop, Cancelled)]
)
def test_failed_hold_rolls_its_transaction_back(
    ledger_of: Ledger, before: Callable[[Ledger, Claim], None], error: type[Exception]
) -> None:
    claim, mark = _claim_job(ledger_of), uuid7()
    before(ledger_of, claim)
    with pytest.raises(error):
        ledger_of.db.transaction(_domain_write, claim, mark)
    assert ledger_of.db.read(lambda session: session.get(WorkerRow, mark)) is None


def test_hold_of_a_valid_claim_lets_the_transaction_commit(ledger_of: Ledger) -> None:
    claim, mark = _claim_job(ledger_of), uuid7()
    ledger_of.db.transaction(_domain_write, claim, mark)
    assert ledger_of.db.read(lambda session: session.get(WorkerRow, mark)) is not None


def test_free_waits_for_the_transaction_that_holds_the_job(ledger_of: Ledger) -> None:
    """A write is either before the loss and counts, or after it and is refused."""
    claim, held, go_on = _claim_job(ledger_of), threading.Event(), threading.Event()
    order: list[str] = []

    def hold(session: Session) -> None:
        claims.hold(session, claim)
        held.set()
        assert go_on.wait(10)
        order.append("written")

    def free() -> None:
        ledger_of.db.transaction(ends.free, WORKER, "killed")
        order.append("freed")

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(ledger_of.db.transaction, hold)
        assert held.wait(10)
        freeing = pool.submit(free)
        wait_until(freeing.running, what="the free to start")
        go_on.set()
        holding.result(10)
        freeing.result(10)
    assert order == ["written", "freed"]
    with pytest.raises(Stale):
        ledger_of.db.transaction(claims.hold, claim)


def test_claimers_of_the_same_ids_get_disjoint_sets(ledger_of: Ledger) -> None:
    ids = [ledger_of.put() for _ in range(120)]
    start = threading.Barrier(4)

    def claim_all(worker_id: str) -> list[str]:
        shuffled = random.sample(ids, len(ids))
        got: list[str] = []
        start.wait(10)
        for place in range(0, len(shuffled), 20):
            batch = ledger_of.db.transaction(claims.claim, shuffled[place : place + 20], worker_id)
            assert {claim.worker_id for claim in batch} <= {worker_id}
            got += [claim.id for claim in batch]
        return got

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(claim_all, [ledger_of.worker(uuid7()) for _ in range(4)]))
    assert sorted(job_id for ids_of_worker in won for job_id in ids_of_worker) == sorted(ids)


class Crowd:
    """Claims, ends, cancels, frees, parks and admits the same jobs in batches of random order."""

    def __init__(self, ledger_of: Ledger, jobs: int) -> None:
        self.ledger = ledger_of
        self.db = ledger_of.db
        self.ids = [ledger_of.put(max_tries=1000) for _ in range(jobs)]

    def rush(self, seed: int, rounds: int) -> None:
        chance, worker_id = random.Random(seed), self.ledger.worker(uuid7())
        for turn in range(rounds):
            batch = chance.sample(self.ids, len(self.ids) // 2)
            held = self.db.transaction(claims.claim, batch, worker_id)
            chance.shuffle(held)
            self.db.transaction(claims.mark_started, [(c.id, c.fence, clock.now()) for c in held])
            self.db.transaction(claims.snapshot, [(c.id, c.fence, {"seq": turn}) for c in held[::-1]])
            if turn % 4 == 3:
                self.db.transaction(workers.mark_dead, worker_id, "killed")
                worker_id = self.ledger.worker(uuid7())
            else:
                self.db.transaction(ends.finish, [self._end(claim, chance) for claim in held])
            self.db.transaction(admissions.park, chance.sample(self.ids, 10), clock.now())
            self.db.transaction(admissions.withdraw)
            self.db.transaction(fairness.admit, "default", 20)
            self.db.transaction(timers.make_due, 20)
            self.db.transaction(commands.cancel, "default", chance.choice(self.ids))

    def _end(self, claim: Claim, chance: random.Random) -> End:
        states: list[State] = ["queued", "queued", "retrying", "retrying", "succeeded"]
        return end_of(claim.id, claim.fence, chance.choice(states), due_at=clock.now())


def test_batches_in_random_order_do_not_deadlock(ledger_of: Ledger) -> None:
    """No deadlock surfaces, every thread finishes, and every job has a valid state."""
    crowd = Crowd(ledger_of, 60)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(crowd.rush, seed, 12) for seed in range(4)]:
            done.result(60)
    states = {ledger_of.row(job_id).state for job_id in crowd.ids}
    assert states <= {"queued", "retrying", "running", "succeeded", "cancelled"}
