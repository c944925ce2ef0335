"""Each run gets a Progress for its code."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware

from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.progress import Progress
from app.jobs.worker.run import Run


class TrackProgress(Middleware):
    """Makes the Progress. `WorkerProcess.end` closes it, so that the last report is published before the end."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def before_process_message(self, broker: Any, message: Any) -> None:
        run: Run = message.options["run"]
        run.progress = Progress(run.claim, self._process.progress_publisher)
