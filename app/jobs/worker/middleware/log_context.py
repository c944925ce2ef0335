"""Request id and trace of a job: bound to every line its code logs and every call it makes."""

from __future__ import annotations

from typing import Any

from dramatiq import Middleware

from app.core.logging import bind, get_logger, unbind
from app.core.telemetry import error_reports, trace, tracing
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
        run = message.options["run"]
        run.span = tracing.begin(
            claim.kind, "CONSUMER", claim.traceparent, job_id=claim.id, job_attempt=claim.tries + 1
        )
        traceparent = claim.traceparent if run.span is None else run.span.traceparent
        trace.enter(traceparent)
        if traceparent is not None:
            bind(trace_id=trace.trace_id(traceparent))

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
            if exception is not None and verdict.error_code == "unexpected":
                error_reports.report(exception)
        if run.span is not None and verdict is not None:
            run.span.end(error=verdict.error_type, job_outcome=verdict.outcome, error_type=verdict.error_code)
            run.span = None
        self._leave(run)

    def after_skip_message(self, broker: Any, message: Any) -> None:
        self._leave(message.options["run"])

    def _leave(self, run: Run) -> None:
        if run.span is not None:
            run.span.end()
            run.span = None
        unbind(*NAMES)
        trace.enter(None)
