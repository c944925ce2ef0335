"""Metrics of runs: counts, durations, waits."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dramatiq import Middleware
from prometheus_client import Counter, Histogram

from app.core import clock, metrics
from app.core.errors import TimeLimitExceeded
from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.run import Run


# A look-up by label costs more than the increment.
@lru_cache(maxsize=1024)
def _waits(queue: str) -> Histogram:
    return metrics.JOB_WAIT_SECONDS.labels(queue)


@lru_cache(maxsize=1024)
def _ended(kind: str, outcome: str) -> Counter:
    return metrics.JOBS_ENDED.labels(kind, outcome)


@lru_cache(maxsize=1024)
def _lengths(kind: str) -> Histogram:
    return metrics.JOB_SECONDS.labels(kind)


class Metrics(Middleware):
    """Counts and times every run."""

    def __init__(self, process: WorkerProcess) -> None:
        metrics.JOBS_RUNNING.set_function(lambda: sum(run.began is not None for run in process.runs.all()))

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        run: Run = message.options["run"]
        claim = run.claim
        if run.verdict is not None:
            _ended(claim.kind, run.verdict.outcome).inc()
            if run.verdict.error_type == TimeLimitExceeded.__name__:
                metrics.JOBS_TIMED_OUT.labels(claim.kind).inc()
        if run.began is not None and run.started_at is not None:
            _lengths(claim.kind).observe(clock.monotonic() - run.began)
            _waits(claim.queue).observe(max(0.0, (run.started_at - claim.due_at).total_seconds()))
