"""Concurrent ends, crashes, cancels and relays on the same parents miscount nothing."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import database
from app.core.errors import Cancelled
from app.core.ids import uuid7
from app.jobs.child_rules import Wait
from app.jobs.children import children
from app.jobs.children.children import ALWAYS
from app.jobs.ledger import child_moves, claims, commands, ends, timers, workers
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import End
from app.jobs.models import JobRow
from app.jobs.states import ENDED, OPEN, State
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import Chore, Ledger, end_of

PARENTS = 5
CHILDREN = 40


class Crowd:
    """Claims queued parents and children and ends them in random ways."""

    def __init__(self) -> None:
        self.db = database()
        self.ledger = Ledger(self.db)

    def rush(self, seed: int) -> None:
        chance, worker_id = random.Random(seed), self.ledger.worker(uuid7())
        for turn in range(14):
            queued = self.db.read(lambda session: list(session.scalars(_ids("queued"))))
            chance.shuffle(queued)
            batch = self.db.transaction(claims.claim, queued[:60], worker_id)
            if turn % 5 == 4:
                self.db.transaction(workers.mark_dead, worker_id, "killed")
                worker_id = self.ledger.worker(uuid7())
                continue
            self.db.transaction(ends.finish, [self._end(claim, chance) for claim in batch])
            self.db.transaction(child_moves.cancel_children, 7)
            self.db.transaction(child_moves.settle)
            self.db.transaction(timers.make_due, 50)
            chosen = self.db.read(lambda session: list(session.scalars(_ids(*OPEN, *ENDED))))
            self.db.transaction(commands.cancel, "default", chance.choice(chosen))

    def _end(self, claim: Claim, chance: random.Random) -> End:
        if claim.parent_id is None and not claim.continues:
            try:
                self.db.transaction(children.start, claim, [Chore(number=n) for n in range(CHILDREN)])
            except Cancelled:
                return end_of(claim.id, claim.fence, "cancelled")
            return end_of(claim.id, claim.fence, "waiting", wait=Wait(ALWAYS))
        states: list[State] = ["succeeded", "succeeded", "failed", "retrying", "queued"]
        return end_of(claim.id, claim.fence, chance.choice(states), due_at=clock.now(), parent_id=claim.parent_id)


def _ids(*states: str) -> sa.Select[str]:
    return sa.select(JobRow.id).where(JobRow.state.in_(states))


def _miscounted(session: Session) -> list[tuple[str, int, int, int, list[str]]]:
    wrong = []
    for row in session.scalars(sa.select(JobRow).where(JobRow.parent_id.is_(None))):
        states = list(session.scalars(sa.select(JobRow.state).where(JobRow.parent_id == row.id)))
        counts = (len(states), sum(s in OPEN for s in states), sum(s in ("failed", "cancelled") for s in states))
        if counts != (row.children, row.open_children, row.failed_children):
            wrong.append((row.id, row.children, row.open_children, row.failed_children, states))
    return wrong


def test_concurrent_threads_count_each_end_once(spine_env: SettingsEnv) -> None:
    crowd = Crowd()
    crowd.ledger.put_many(PARENTS, max_tries=1000)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(crowd.rush, seed) for seed in range(4)]:
            done.result(60)
    assert database().read(_miscounted) == []
    started = database().read(lambda session: session.scalar(sa.select(sa.func.sum(JobRow.children))))
    assert started
    assert started > CHILDREN
