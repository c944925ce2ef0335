"""The start and the end of a run are recorded."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware
from dramatiq.middleware import SkipMessage

from app.core.errors import Interrupted
from app.jobs.worker.outcome import judge
from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.run import Run


class Finish(Middleware):
    """Hands starts and ends to the finisher."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def before_process_message(self, broker: Any, message: Any) -> None:
        """Skip a run that was stopped or handed back while it waited for a thread."""
        run: Run = message.options["run"]
        if not run.begin():
            raise SkipMessage("stopped before it began")
        assert run.started_at is not None
        self._process.finisher.mark_started(run.claim, run.started_at)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        run: Run = message.options["run"]
        self._process.end(run, run.verdict or judge(run.claim, exception))

    def after_skip_message(self, broker: Any, message: Any) -> None:
        run: Run = message.options["run"]
        self._process.end(run, judge(run.claim, run.reason or Interrupted("the run was skipped")))
