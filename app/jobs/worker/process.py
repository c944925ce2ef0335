"""One worker process: its identity, its runs, and the threads that serve them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Container
from typing import Any

from app.core import clock
from app.core.db import database
from app.core.errors import ConfigError, Interrupted, Stale, Unavailable
from app.core.ids import uuid7
from app.core.logging import get_logger
from app.core.process import EXIT_SOFTWARE
from app.core.settings import get_settings
from app.jobs.ledger import claims
from app.jobs.worker.fetcher import Fetcher
from app.jobs.worker.finisher import EndedRun, Finisher
from app.jobs.worker.held_check import HeldCheck
from app.jobs.worker.loop import JobLoop
from app.jobs.worker.loop_watch import LoopWatch
from app.jobs.worker.outcome import Verdict, end_of, judge
from app.jobs.worker.progress import ProgressPublisher
from app.jobs.worker.run import Run, Runs

# A claimed job that waits longer for a thread goes to another worker.
MAX_THREAD_WAIT_S = 1.0
STALLED_S = 5.0
SQL_RETRY_S = 0.5

log = get_logger(__name__)


class WorkerProcess:
    """The process; made with the broker, started when Dramatiq's worker boots."""

    def __init__(self, known_kinds: Container[str]) -> None:
        self.id = uuid7()
        self.threads = get_settings().worker_threads
        self.stopping = threading.Event()
        self.nudged = threading.Event()
        self.on_end_soon: Callable[[int], None] = os._exit
        self.runs = Runs()
        self.loop = JobLoop()
        self.finisher = Finisher(lambda: self.id)
        self.progress_publisher = ProgressPublisher(self.finisher.snapshot)
        self.finisher.before_ends = self.progress_publisher.settle
        self.held_check = HeldCheck(self.runs, self.finisher)
        self.loop_watch = LoopWatch(self.loop, self.runs, self.finisher)
        self.fetcher = Fetcher(lambda: self.id, known_kinds, self.runs, self.finisher)

    def start(self, queues: list[str], threads: int) -> None:
        self.threads = threads
        self.fetcher.set_up(queues, threads)
        self.loop.start(threads)
        self.finisher.start()
        self.progress_publisher.start()

    def end(self, run: Run, verdict: Verdict) -> None:
        """Hand the run's end to the finisher and free its slot; once a run."""
        if run.end():
            self._submit(run, verdict)

    def mark_start_now(self, run: Run) -> None:
        """Record the start before the code runs; block while SQL is away. Raises Interrupted when the worker stops."""
        assert run.started_at is not None
        while True:
            try:
                database().transaction(claims.mark_started, [(run.claim.id, run.claim.fence, run.started_at)])
                return
            except (Unavailable, ConfigError) as error:
                if run.reason is not None:
                    raise run.reason from error
                if self.stopping.wait(SQL_RETRY_S):
                    raise Interrupted("the worker is stopping") from error

    def hand_back(self, run: Run) -> bool:
        """Give back a run that has not begun; False if it has."""
        if not run.hand_back():
            return False
        self._submit(run, Verdict("queued", "handed_back", run.claim.tries))
        return True

    def hand_back_waiting(self) -> None:
        """Hand back runs that have waited a second for a thread, and lower their queue's prefetch."""
        now = clock.monotonic()
        for run in self.runs.all():
            if run.began is None and now - run.taken_at > MAX_THREAD_WAIT_S and self.hand_back(run):
                self.fetcher.prefetch.learn(run.queue, MAX_THREAD_WAIT_S)

    def stop_fetching(self) -> None:
        """Claim no more jobs and hand back at once those that have not begun."""
        self.stopping.set()
        self.fetcher.stop()
        for run in self.runs.all():
            self.hand_back(run)

    def interrupt_all(self) -> None:
        for run in self.runs.all():
            run.interrupt(Interrupted("the worker is stopping"))

    def abandon(self) -> None:
        """Hand back runs that did not stop, so that their end is recorded before the process exits."""
        for run in self.runs.all():
            self.end(run, Verdict("queued", "handed_back", run.claim.tries))

    def end_blocked(self) -> bool:
        """End the run that blocks the loop as a counted try, and hand back all others; False if no run is known to."""
        blocker = self.loop_watch.blocker
        if blocker is None:
            return False
        self.end(blocker.run, judge(blocker.run.claim, self.loop_watch.error(blocker)))
        self.abandon()
        return True

    def nudge(self, worker_id: str) -> None:
        """Read this worker's row now, not at the next heartbeat: it may hold an order."""
        if worker_id == self.id:
            self.nudged.set()

    def apply_order(self, state: str | None) -> None:
        """Apply the state of this worker's row."""
        if state == "running" and not self.stopping.is_set():
            self.fetcher.resume()
        # `dead` is not an order: the next heartbeat finds it and takes another identity.
        if state not in ("paused", "draining") or self.stopping.is_set():
            return
        if not self.fetcher.is_paused:
            log.info("worker_obeys", worker_id=self.id, state=state, running=len(self.runs))
        self.fetcher.pause()
        for run in self.runs.all():
            self.hand_back(run)

    def end_soon(self, reason: str) -> None:
        """Drain and exit with an error: a job cannot be stopped in another way."""
        log.error("worker_ends", reason=reason)
        self.on_end_soon(EXIT_SOFTWARE)

    def rename(self) -> None:
        """Take a new identity after the old one was declared dead; its runs now belong to other workers."""
        self.id = uuid7()
        for run in self.runs.all():
            run.interrupt(Stale("this worker was declared dead"))

    @property
    def is_serving(self) -> bool:
        """True if the threads live without which runs would never end."""
        return self.finisher.is_alive and self.progress_publisher.is_alive

    def health(self) -> dict[str, Any]:
        """Return the answer of /health."""
        lag_s, draining = self.loop.stalled_s, self.stopping.is_set()
        working = "stalled" if lag_s > STALLED_S else self.fetcher.problem or self.finisher.problem or "healthy"
        if self.fetcher.is_paused and working == "healthy":
            working = "paused"
        return {
            "status": "draining" if draining else working,
            "role": "worker",
            "worker_id": self.id,
            "queues": self.fetcher.queues,
            "worker_threads": self.threads,
            "held": len(self.runs),
            "loop_lag_s": round(lag_s, 3),
        }

    def _submit(self, run: Run, verdict: Verdict) -> None:
        claim = run.claim
        progress, events = run.progress.close(succeeded=verdict.state == "succeeded") if run.progress else (None, [])
        if run.began is not None:
            self.fetcher.prefetch.learn(run.queue, clock.monotonic() - run.began)
        self.runs.remove(run)
        if verdict.state is None:  # taken over by another worker: nothing is written
            self.finisher.forget([(run.queue, run.redis_id)])
            return
        end = end_of(claim, verdict, started_at=run.started_at, result=run.result, progress=progress)
        self.finisher.submit(EndedRun(end, claim, (run.queue, run.redis_id), events))
