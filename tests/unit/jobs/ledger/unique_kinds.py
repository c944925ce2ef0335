"""Kinds for each of the three unique rules, and a helper that starts, claims and ends their jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from app.core import clock
from app.core.db import database
from app.jobs.definition import Debounce, Job, Throttle
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import claims, ends, timers
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.jobs.states import OPEN, State
from tests.unit.jobs.conftest import WORKER, Ledger, end_of

T = TypeVar("T")


class Once(Job, kind="tests.unique.once", unique_key=lambda job: job.about):
    about: str | None = "a"
    number: int = 0


class Seldom(Job, kind="tests.unique.seldom", unique_key=lambda job: job.about, unique=Throttle(60)):
    about: str = "a"
    number: int = 0


class Settled(Job, kind="tests.unique.settled", unique_key=lambda job: job.about, unique=Debounce(10, max_wait_s=25)):
    about: str = "a"
    number: int = 0


class Single(Job, kind="tests.unique.single", unique=Throttle(60)):
    """Unique in its tenant, without a key."""

    number: int = 0


class Starting:
    """Starts jobs and moves them as workers, relays and commands do."""

    def __init__(self) -> None:
        self.ledger = Ledger(database())
        self.ledger.worker()
        self._ahead_s = 0.0

    def advance(self, seconds: float) -> None:
        """Move the wall clock of this process forward."""
        self._ahead_s += seconds
        clock.shift(timedelta(seconds=self._ahead_s))

    def start(self, job: Job, *, tenant: str = "default", **options: Any) -> EnqueuedJob:
        return database().transaction(enqueue, job, tenant=tenant, **options)

    def start_id(self, job: Job, **options: Any) -> str:
        return self.start(job, **options).id

    def row(self, job_id: str) -> JobRow:
        return self.ledger.row(job_id)

    def make_due(self) -> None:
        database().transaction(timers.make_due, 100)

    def claim(self, job_id: str) -> Claim:
        (claim,) = database().transaction(claims.claim, [job_id], WORKER)
        return claim

    def end(self, claim: Claim, state: State = "succeeded", **more: Any) -> State | None:
        """End the claim and return the new state, or None if the claim was lost."""
        end = end_of(claim.id, claim.fence, state, **({"kind": claim.kind} | more))
        moved = database().transaction(ends.finish, [end])
        return moved[0].state if moved else None

    def run_due(self) -> list[Claim]:
        """Run all due jobs and return their claims."""
        self.make_due()
        query = sa.select(JobRow.id).where(JobRow.state == "queued").order_by(JobRow.id)
        ids = database().read(lambda session: list(session.scalars(query)))
        batch = database().transaction(claims.claim, ids, WORKER) if ids else []
        for claim in batch:
            self.end(claim)
        return batch

    def run(self, job_id: str, state: State = "succeeded") -> State | None:
        return self.end(self.claim(job_id), state)

    def rows(self, kind: type[Job], *, only_open: bool = False) -> list[JobRow]:
        query = sa.select(JobRow).where(JobRow.kind == kind.kind).order_by(JobRow.id)
        if only_open:
            query = query.where(JobRow.state.in_(OPEN))
        return database().read(lambda session: list(session.scalars(query)))


def at_once(count: int, do: Callable[[int], T]) -> list[T]:
    """Call `do` in `count` threads that start together, and return the results."""
    barrier, answers, errors = threading.Barrier(count), dict[int, T](), list[BaseException]()

    def run(number: int) -> None:
        barrier.wait(30)
        try:
            answers[number] = do(number)
        except BaseException as error:  # noqa: BLE001  it is raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [answers[number] for number in range(count)]
