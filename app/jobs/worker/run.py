"""One claim being run in this process, and the table of all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from app.core import clock
from app.core.errors import AppError
from app.core.telemetry.tracing import Span
from app.jobs.definition import Job, definition
from app.jobs.ledger.claims import Claim
from app.jobs.worker.outcome import Verdict
from app.jobs.worker.progress import Progress

Stop = Callable[[AppError], None]


# One lock for all runs: it is held for an assignment or two, and a lock per run would cost more than any wait.
_lock = threading.Lock()


class Run:
    """State of a claim between the claim and the write of its end."""

    __slots__ = (
        "_stop", "began", "claim", "ended", "hard_deadline", "progress", "queue", "reason", "redis_id", "result",
        "soft_deadline", "span", "started_at", "taken_at", "task", "verdict",
    )  # fmt: skip

    def __init__(self, claim: Claim, redis_id: str, taken_from: str) -> None:
        self.claim = claim
        self.redis_id = redis_id
        self.queue = taken_from
        self.taken_at = clock.monotonic()
        self.started_at: datetime | None = None
        self.began: float | None = None
        self.soft_deadline: float | None = None
        self.hard_deadline: float | None = None
        self.progress: Progress | None = None
        self.result: dict[str, Any] | None = None
        self.verdict: Verdict | None = None
        self.reason: AppError | None = None
        self.ended = False
        self.span: Span | None = None
        # The task of an `async def` run.
        self.task: asyncio.Task[None] | None = None
        self._stop: Stop | None = None

    @property
    def definition(self) -> type[Job] | None:
        return definition(self.claim.kind)

    def begin(self) -> bool:
        """Mark the code as running; False if the run was stopped or handed back before."""
        with _lock:
            if self.reason is not None or self.ended:
                return False
            self.started_at, self.began = clock.now(), clock.monotonic()
            return True

    def end(self) -> bool:
        """Take the right to write the run's end; True once."""
        with _lock:
            if self.ended:
                return False
            self.ended = True
            return True

    def hand_back(self) -> bool:
        """Take the right to hand back a run that has not begun."""
        with _lock:
            if self.ended or self.began is not None:
                return False
            self.ended = True
            return True

    def attach(self, stop: Stop) -> None:
        """Set the function that stops the running code; it is called at once if a reason to stop came first."""
        with _lock:
            self._stop, reason = stop, self.reason
        if reason is not None:
            stop(reason)

    def interrupt(self, reason: AppError) -> None:
        """Stop the code for this reason; the first reason stays, and each call repeats the stop."""
        with _lock:
            self.reason = self.reason or reason
            stop, reason = self._stop, self.reason
        if stop is not None:
            stop(reason)

    def limit(self, time_limit_s: float, grace_s: float) -> None:
        now = clock.monotonic()
        self.soft_deadline, self.hard_deadline = now + time_limit_s, now + time_limit_s + grace_s

    def postpone(self, seconds: float) -> None:
        """Give the run more time: another one has kept the loop from it."""
        if self.soft_deadline is not None and self.hard_deadline is not None:
            self.soft_deadline, self.hard_deadline = self.soft_deadline + seconds, self.hard_deadline + seconds

    def disarm(self) -> None:
        self.soft_deadline = self.hard_deadline = None


class Runs:
    """The runs this process holds, by job."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, runs: list[Run]) -> None:
        with self._lock:
            self._runs.update({run.claim.id: run for run in runs})

    def remove(self, run: Run) -> None:
        with self._lock:
            if self._runs.get(run.claim.id) is run:
                del self._runs[run.claim.id]
            self._changed.notify_all()

    def wait_below(self, count: int, timeout_s: float) -> bool:
        """Wait until fewer than `count` runs are held; return False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._runs) < count, timeout_s)

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def get(self, job_id: str) -> Run | None:
        return self._runs.get(job_id)

    def all(self) -> list[Run]:
        with self._changed:
            return list(self._runs.values())
