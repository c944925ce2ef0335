"""A steady stream of jobs of every kind, and the list of those whose enqueueing was confirmed."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import database
from app.core.errors import ConfigError, Unavailable
from app.jobs.children.pipeline import Pipeline
from app.jobs.definition import Job
from app.jobs.ledger import commands
from app.jobs.ledger.enqueue import enqueue, enqueue_many
from tests.chaos.clockwork import Clockwork
from tests.support.chaos_kinds import Broken, Chain, Endless, Family, Flaky, InSandbox, Latest, Plain, Quick, Steps

TENANT = "chaos"
CANCEL_AFTER_S = (0.0, 0.6)
# What the debounced jobs are about.
SUBJECTS = ("bread", "wine", "salt")


def _write(session: Session, jobs: Sequence[Job], due_in_s: float) -> list[str]:
    due_at = clock.now() + timedelta(seconds=due_in_s) if due_in_s else None
    return [row.id for row in enqueue_many(session, jobs, tenant=TENANT, due_at=due_at)]


class Load:
    """One thread that enqueues, and cancels what is made to be cancelled."""

    def __init__(self, seed: int, rate: float) -> None:
        self.confirmed: dict[str, str] = {}
        # The last confirmed number of each subject of the debounced jobs.
        self.latest: dict[str, int] = {}
        self.clockwork = Clockwork(TENANT)
        self._numbers = itertools.count()
        self.unconfirmed = 0
        self._rng = random.Random(seed)
        self._rate = rate
        self._to_cancel: list[tuple[float, str]] = []
        self._running = threading.Event()
        self._idle = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._running.set()
        self._thread.start()
        self.clockwork.start()

    def pause(self) -> None:
        """Returns when nothing is being enqueued, and all that is to be cancelled has been."""
        self.clockwork.pause()
        self._running.clear()
        self._idle.wait(60)

    def resume(self) -> None:
        self._idle.clear()
        self._running.set()
        self.clockwork.resume()

    def stop(self) -> None:
        self._stopping = True
        self._running.set()
        self.clockwork.stop()
        if self._thread.ident is not None:
            self._thread.join(20)

    def probe(self, wait: Callable[[float], None]) -> str:
        """One job now, whatever the state of things; its id. A worker frozen inside a transaction holds all of SQLite
        until `wait` has woken it."""
        while True:
            try:
                job_id = database().transaction(lambda session: enqueue(session, Quick(), tenant=TENANT).id)
            except (Unavailable, ConfigError):
                self.unconfirmed += 1
                wait(0.1)
                continue
            self.confirmed[job_id] = Quick.kind
            return job_id

    def _run(self) -> None:
        while not self._stopping:
            if not self._running.is_set():
                self._cancel_due(everything=True)
                if not self._to_cancel:
                    self._idle.set()
                self._running.wait(0.1)
                continue
            self._cancel_due()
            jobs, due_in_s = self._next()
            self._enqueue(jobs, due_in_s)
            time.sleep(self._rng.expovariate(self._rate / max(1, len(jobs))))

    def _next(self) -> tuple[list[Job], float]:
        rng = self._rng
        dice = rng.random()
        if dice < 0.04:
            return [self._family()], 0.0
        if dice < 0.12:
            return [Latest(about=rng.choice(SUBJECTS), number=next(self._numbers))], 0.0
        if dice < 0.30:
            return [Quick() for _ in range(rng.choice((1, 1, 1, 2, 5, 20)))], 0.0
        if dice < 0.72:
            return [self._steps()], 0.0
        if dice < 0.80:
            return [self._steps() for _ in range(3)], rng.uniform(0.2, 3)
        if dice < 0.90:
            return [Flaky(effects=rng.randint(2, 4))], 0.0
        if dice < 0.93:
            return [Broken()], 0.0
        if dice < 0.96:
            return [Endless()], 0.0
        return [InSandbox() if rng.random() < 0.6 else Plain()], 0.0

    def _family(self) -> Job:
        """One that succeeds, some of whose children fail, one to be cancelled whole, or one in a row."""
        children = self._rng.choice((2, 5, 20))
        dice = self._rng.random()
        if dice < 0.2:
            return Pipeline.of(*(Chain() for _ in range(3)))
        if dice < 0.4:
            return Family(children=children, endless=True)
        failing = self._rng.choice((0, 0, 1, 2))
        return Family(children=children, failing=failing, allowed=failing, batch=7, pause_s=self._rng.uniform(0, 0.1))

    def _steps(self) -> Steps:
        effects = self._rng.choice((2, 3, 4, 5))
        slow = self._rng.random() < 0.05
        return Steps(effects=effects, pause_s=self._rng.uniform(0.2, 0.4) if slow else self._rng.uniform(0.02, 0.15))

    def _enqueue(self, jobs: list[Job], due_in_s: float) -> None:
        try:
            ids = database().transaction(_write, jobs, due_in_s)
        except (Unavailable, ConfigError):
            self.unconfirmed += len(jobs)  # whether they are there shows later; if so they must end, too
            time.sleep(0.05)
            return
        for job_id, job in zip(ids, jobs, strict=True):
            self.confirmed[job_id] = job.kind
            if isinstance(job, Latest):
                self.latest[job.about] = job.number
            if isinstance(job, Endless) or (isinstance(job, Family) and job.endless):
                self._to_cancel.append((time.monotonic() + self._rng.uniform(*CANCEL_AFTER_S), job_id))

    def _cancel_due(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        for item in [item for item in self._to_cancel if everything or item[0] <= now]:
            try:
                database().transaction(commands.cancel, TENANT, item[1])
            except (Unavailable, ConfigError):
                continue
            self._to_cancel.remove(item)
