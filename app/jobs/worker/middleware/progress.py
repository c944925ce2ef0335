"""Gives each run what its code reports to."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware

from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.progress import Progress
from app.jobs.worker.run import Run


class ReportProgress(Middleware):
    """The run's end closes it (`WorkerProcess.end`), so that the last report and the end go out in their order."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def before_process_message(self, broker: Any, message: Any) -> None:
        run: Run = message.options["run"]
        run.progress = Progress(run.claim, self._process.teller)
