"""Request id and trace of a job: bound to every line its code logs and every call it makes."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware

from app.core import trace
from app.core.logging import bind, get_logger, unbind
from app.jobs.worker.run import Run

NAMES = ("job_id", "kind", "attempt", "fence", "request_id", "tenant", "trace_id")

log = get_logger(__name__)


class LogContext(Middleware):
    """Binds the job to the log context, and logs a failed end."""

    def before_process_message(self, broker: Any, message: Any) -> None:
        claim = message.options["run"].claim
        bind(
            job_id=claim.id,
            kind=claim.kind,
            attempt=claim.tries + 1,
            fence=claim.fence,
            request_id=claim.request_id,
            tenant=claim.tenant,
        )
        trace.enter(claim.traceparent)
        if claim.traceparent is not None:
            bind(trace_id=trace.trace_id(claim.traceparent))

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        run: Run = message.options["run"]
        verdict = run.verdict
        if verdict is not None and verdict.error_type is not None:
            line = log.warning if verdict.state != "cancelled" else log.info
            line(
                "job_ended",
                outcome=verdict.outcome,
                error_type=verdict.error_type,
                error=verdict.error_message,
                delay_s=verdict.delay_s,
                traceback=verdict.traceback,
            )
        self._leave()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        self._leave()

    def _leave(self) -> None:
        unbind(*NAMES)
        trace.enter(None)
