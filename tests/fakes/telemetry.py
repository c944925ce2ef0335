"""Fake receivers of telemetry: spans by OTLP over HTTP, and reports of Sentry."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

import brotli
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fakes.server import FakeServer, Request, Response


def _content(request: Request) -> bytes:
    """Return the body unpacked; Sentry's SDK sends br where a decoder is installed."""
    unpack = {"gzip": gzip.decompress, "br": brotli.decompress}.get(request.headers.get("content-encoding", ""))
    return request.body if unpack is None else bytes(unpack(request.body))


@dataclass(frozen=True)
class ReceivedSpan:
    """A span, with the attributes of its process."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    has_failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class OtlpReceiver(FakeServer):
    """Stores the spans that are posted to /v1/traces."""

    def respond(self, request: Request) -> Response:
        return Response(b"", 200 if request.path == "/v1/traces" else 404)

    @property
    def spans(self) -> list[ReceivedSpan]:
        received = []
        for request in list(self.requests):
            for group in ExportTraceServiceRequest.FromString(_content(request)).resource_spans:
                resource = _values(group.resource.attributes)
                received += [_span(span, resource) for scope in group.scope_spans for span in scope.spans]
        return received


def _span(span: Any, resource: dict[str, Any]) -> ReceivedSpan:
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return ReceivedSpan(span.name, span.kind, *ids, span.status.code == 2, _values(span.attributes), resource)


def _values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


class SentryReceiver(FakeServer):
    """Stores the events of the envelopes that are posted to it."""

    def respond(self, request: Request) -> Response:
        return Response({"id": "0"})

    @property
    def dsn(self) -> str:
        return self.url.replace("http://", "http://public@") + "/1"

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line for request in list(self.requests) for line in _content(request).splitlines() if line]
        items = [json.loads(line) for line in lines]
        return [item for item in items if "event_id" in item and "timestamp" in item and "level" in item]
