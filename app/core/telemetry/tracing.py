"""Spans of requests, jobs and calls by OpenTelemetry, where its extra is installed and a receiver is set.

The standard variables OTEL_* configure receiver, sampling and resource. A span's identity is carried as a traceparent
(app/core/telemetry/trace.py), so jobs and calls continue the trace of their request in any process.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from app import __version__
from app.core.logging import get_logger
from app.core.settings import has_trace_receiver
from app.core.telemetry import trace

Kind = Literal["SERVER", "CONSUMER", "CLIENT"]
Value = str | int | float | bool

log = get_logger(__name__)

_provider: Any = None
_tracer: Any = None


class Span:
    """One span; `end` closes it once."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Any) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, *, name: str | None = None, error: str | None = None, **attributes: Value | None) -> None:
        """Set name and attributes and close the span; `error` marks it as failed. `_` in a name stands for `.`."""
        if name is not None:
            self._span.update_name(name)
        self._span.set_attributes(_named(attributes))
        if error is not None:
            status = importlib.import_module("opentelemetry.trace.status")
            self._span.set_status(status.Status(status.StatusCode.ERROR, error))
        self._span.end()


def start(role: str) -> None:
    """Begin to send spans of this process, if a receiver is set; a missing extra is logged."""
    global _provider, _tracer
    if _tracer is not None or not has_trace_receiver():
        return
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        log.warning("telemetry_not_installed", extra="otel")
        return
    own = resources.Resource({"service.name": "millrace", "service.version": __version__, "millrace.role": role})
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say has precedence.
    resource = resources.Resource.create().merge(own).merge(resources.OTELResourceDetector().detect())
    _provider = sdk.TracerProvider(resource=resource)
    _provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    _tracer = _provider.get_tracer("millrace", __version__)


def stop() -> None:
    """Send the spans that wait; for processes that end without Python's own clean-up."""
    global _provider, _tracer
    if _provider is not None:
        _provider.shutdown()
        _provider = _tracer = None


def begin(name: str, kind: Kind, parent: str | None, **attributes: Value | None) -> Span | None:
    """Return a new span below the parent's traceparent; None while this process sends no spans."""
    if _tracer is None:
        return None
    api = importlib.import_module("opentelemetry.trace")
    context = None
    if parent is not None:
        _, trace_id, span_id, flags = parent.split("-")
        remote = api.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=api.TraceFlags(int(flags, 16))
        )
        context = api.set_span_in_context(api.NonRecordingSpan(remote))
    else:
        context = importlib.import_module("opentelemetry.context").Context()
    return Span(_tracer.start_span(name, context, api.SpanKind[kind], _named(attributes)))


@contextmanager
def call(method: str, url: str, host: str, port: int | None) -> Iterator[CallResult]:
    """Surround an outgoing call of a request or a job with a span; its traceparent goes with the call."""
    result = CallResult(trace.child())
    parent = trace.current()
    span = (
        None
        if parent is None
        else begin(
            method, "CLIENT", parent, http_request_method=method, url_full=url, server_address=host, server_port=port
        )
    )
    if span is None:
        yield result
        return
    result.traceparent = span.traceparent
    try:
        yield result
    except BaseException as error:
        span.end(error=type(error).__name__, error_type=type(error).__name__)
        raise
    is_error = result.status is not None and result.status >= 400
    span.end(error=str(result.status) if is_error else None, http_response_status_code=result.status)


class CallResult:
    """The traceparent to send with a call, and the status of its answer."""

    __slots__ = ("status", "traceparent")

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent
        self.status: int | None = None


# Names of the semantic conventions that have an underscore of their own.
_WHOLE = {
    "http_response_status_code": "http.response.status_code",
    "messaging_message_id": "messaging.message.id",
    "job_wait_s": "millrace.job.wait_s",
}


def _named(attributes: dict[str, Value | None]) -> dict[str, Value]:
    return {_WHOLE.get(name, name.replace("_", ".")): value for name, value in attributes.items() if value is not None}
