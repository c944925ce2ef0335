"""The verdict on an attempt, by the outcome table; the ledger alone carries retries and their delays."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware

from app.jobs.worker.outcome import judge
from app.jobs.worker.run import Run


class Retries(Middleware):
    """Judges every attempt once."""

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        run: Run = message.options["run"]
        run.verdict = judge(run.claim, exception)
