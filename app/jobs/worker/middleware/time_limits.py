"""Soft limits raise inside the run; at the hard limit its sandbox is killed, or this process ends."""

from __future__ import annotations

import threading
from typing import Any

from dramatiq import Middleware

from app.core import clock
from app.core.errors import AppError, TimeLimitExceeded
from app.core.logging import get_logger
from app.jobs.worker.outcome import judge
from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.run import Run

TICK_S = 0.1

log = get_logger(__name__)


class TimeLimits(Middleware):
    """Sets the limits of every run and enforces them from a thread."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def before_process_message(self, broker: Any, message: Any) -> None:
        run: Run = message.options["run"]
        definition = run.definition
        if definition is not None:
            run.limit(definition.time_limit_s, definition.grace_s)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        message.options["run"].disarm()

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        threading.Thread(target=self._watch, name="time-limits", daemon=True).start()

    def _watch(self) -> None:
        tick = threading.Event()
        while not tick.wait(TICK_S):
            now = clock.monotonic()
            for run in self._process.runs.all():
                self._check(run, now)
            self._process.hand_back_waiting()

    def _check(self, run: Run, now: float) -> None:
        soft, hard = run.soft_deadline, run.hard_deadline
        if run.reason is not None and run.began is not None and not run.ended:
            run.interrupt(run.reason)  # repeated: the code may have swallowed the first
        if soft is None or hard is None or now < soft:
            return
        watch = self._process.loop_watch
        blocker = watch.blocker
        if run.task is not None and watch.is_stalled and (blocker is None or blocker.run is not run):
            return  # another run keeps the loop from it
        limit_s = run.definition.time_limit_s if run.definition else 0.0
        error = TimeLimitExceeded(f"the time limit of {limit_s:g} s was exceeded")
        if now < hard:
            run.interrupt(error)
            return
        run.disarm()
        # The code runs on and can write nothing; only the exit of the process ends it.
        log.error("hard_time_limit", job_id=run.claim.id, kind=run.claim.kind)
        final: AppError = TimeLimitExceeded(f"{error.message}, and it did not stop")
        if blocker is not None and blocker.run is run:
            final = watch.error(blocker)
        self._process.end(run, judge(run.claim, final))
        self._process.end_soon("a job passed its hard time limit")
