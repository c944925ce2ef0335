"""The outermost layer: one plain ASGI middleware for request ids, limits, log lines and metrics.

It is one layer and not six because each layer costs every open stream a frame and its closures.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.errors import problem
from app.core import clock
from app.core.logging import bind, get_logger
from app.core.metrics import REQUEST_SECONDS
from app.core.telemetry import trace, tracing
from app.metrics.requests import RequestTiming, StrangerSample
from app.tenants.keyring import KeyLease

log = get_logger("app.access")

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# Probes call these every few seconds; they are logged at level debug.
QUIET = frozenset({"/livez", "/readyz", "/health", "/metrics"})
STATIC = "/static/"
STREAM = "millrace.stream"
# In a request's state: the link between an open stream and its key.
HOLD = "key_hold"
# In a request's state: the tenant of its key.
TENANT = "tenant"
# In a request's state: True if its sender has proved that it has a secret, as webhooks do.
VERIFIED = "verified"
# In a request's state: headers for its answer.
EXTRA_HEADERS = "extra_headers"
POLICY_VIOLATION = 1008
# Others share a label: each makes new series for every route.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# A body of a caller that has shown no credentials is read up to here.
MAX_STRANGERS_BODY_BYTES = 64 * 1024
# The api's own server refuses larger heads before it has read them.
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
# The keys of a request that an open stream needs; the others (endpoint, exit stacks) are released.
STREAM_KEYS = frozenset({"type", "method", "path", "query_string", "http_version", "client", "state", "route"})

Record = Callable[[RequestTiming], None]
# Tells if a request has valid credentials.
IsKnown = Callable[[Scope], Awaitable[bool]]


class RequestMiddleware:
    """Wraps the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        body_limits: Mapping[str, int] | None = None,
        record: Record | None = None,
        is_known: IsKnown | None = None,
    ) -> None:
        """`body_limits` are limits in bytes of paths with larger bodies. `record` gets the timing of each request.

        `is_known` is asked once more than MAX_STRANGERS_BODY_BYTES of a body have arrived.
        """
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.body_limits = body_limits or {}
        self.record = record
        self.is_known = is_known
        self.strangers = StrangerSample()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        limit = self.body_limits.get(scope["path"], self.max_body_bytes)
        request = RequestScope(scope, receive, send, limit, self.is_known)
        bind(request_id=request.request_id)
        request.trace()
        stream = None
        try:
            refusal = request.refusal()
            await (refusal or self.app)(scope, request.receive, request.send)
            # A stream runs here, after the frames of routing and dependencies: that halves its memory.
            stream = scope.pop(STREAM, None)
            if stream is not None:
                for name in scope.keys() - STREAM_KEYS:
                    del scope[name]
                hold = scope["state"].get(HOLD)
                await (stream() if hold is None else request.run_until_revoked(hold, stream))
        finally:
            request.finish(self._record_of(scope) if stream is None else None)

    def _record_of(self, scope: Scope) -> Record | None:
        """Return what records this request; of unknown callers a few requests are recorded."""
        if self.record is None or scope["path"] in QUIET or STATIC in scope["path"]:
            return None
        is_known = scope["state"].get(TENANT) is not None or scope["state"].get(VERIFIED)
        return self.record if is_known or self.strangers.take() else None

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle start and stop of the process, and WebSockets, which close when their key is revoked."""
        app = self.app
        if scope["type"] == "websocket":
            request = RequestScope(scope, receive, send, self.max_body_bytes)
            bind(request_id=request.request_id)
            log.info("websocket", path=scope["path"], client=scope["client"][0] if scope.get("client") else None)
            app = request.refusal() or app
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            hold = scope.get("state", {}).pop(HOLD, None)
            if hold is None or not hold.end():
                raise
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "the key was revoked"})
        finally:
            hold = scope.get("state", {}).pop(HOLD, None)
            if hold is not None:
                hold.end()


class RequestScope:
    """One request and its answer."""

    __slots__ = (
        "_complete", "_is_known", "_limit", "_receive", "_received", "_send", "_span", "_started", "request_id",
        "scope", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int, is_known: IsKnown | None = None) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._limit = limit
        self._is_known = is_known
        self._received = 0
        self._started = clock.monotonic()
        self._complete = False
        self._span: tracing.Span | None = None
        self.status = 0
        self.request_id = self._identify()
        scope.setdefault("state", {})["request_id"] = self.request_id

    def _identify(self) -> str:
        """Return the caller's request id if it is short, printable ASCII; else a new one."""
        header = self._header(b"x-request-id")
        return header.decode("ascii") if header and REQUEST_ID.fullmatch(header) else str(uuid.uuid4())

    def trace(self) -> None:
        """Continue the caller's trace: jobs and calls of this request belong to it."""
        header = self._header(b"traceparent")
        traceparent = trace.checked(header.decode("latin-1")) if header else None
        method, path = self.scope["method"], self.scope["path"]
        if path not in QUIET:
            self._span = tracing.begin(method, "SERVER", traceparent, http_request_method=method)
        if self._span is not None:
            traceparent = self._span.traceparent
        trace.enter(traceparent)
        if traceparent is not None:
            bind(trace_id=trace.trace_id(traceparent))

    def _header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.scope["headers"] if key == name), None)

    def refusal(self) -> ASGIApp | None:
        """Return the answer to a request that reaches no route, None for any other."""
        scope = self.scope
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return problem(scope, 400, "the address contains a NUL character", code="nul_character")
        headers = scope["headers"]
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return problem(scope, 431, f"the request has more than {MAX_HEADERS} headers, or {MAX_HEADER_BYTES} bytes")
        length = self._header(b"content-length")
        if length and length.isdigit() and int(length) > self._limit:
            return problem(scope, 413, self._too_large(), headers={"Connection": "close"})
        return None

    def _too_large(self) -> str:
        return f"the body is larger than {self._limit} bytes"

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._limit:
                raise HTTPException(413, self._too_large(), headers={"Connection": "close"})
            if self._is_known is not None and self._received > MAX_STRANGERS_BODY_BYTES:
                await self._require_known(self._is_known)
        return message

    async def _require_known(self, is_known: IsKnown) -> None:
        """Refuse the rest of a large body without valid credentials: the application reads bodies before it asks."""
        self._is_known = None
        if not await is_known(self.scope):
            headers = {"Connection": "close", "WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "a large body needs valid credentials", headers=headers)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            headers.extend(self.scope["state"].pop(EXTRA_HEADERS, ()))
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
            headers.append((b"x-process-time", b"%.2f" % self._elapsed_ms()))
        elif not message.get("more_body", False):
            self._complete = True
        await self._send(message)

    async def run_until_revoked(self, hold: KeyLease, stream: Callable[[], Awaitable[None]]) -> None:
        """Run the stream until it ends or its key is revoked."""
        hold.begin()
        try:
            await stream()
        except asyncio.CancelledError:
            if not hold.end():
                raise
            if not self._complete:
                await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            hold.end()

    def _elapsed_ms(self) -> float:
        return (clock.monotonic() - self._started) * 1000

    def finish(self, record: Record | None) -> None:
        """Count, log and record the request. Metrics have the route's pattern: paths are unbounded.

        Probes and static files are not recorded, since they would hide the work, nor are streams, whose duration is
        their clients' choice.
        """
        elapsed_ms = self._elapsed_ms()
        route = getattr(self.scope.get("route"), "path", "unmatched")
        method = self.scope["method"] if self.scope["method"] in METHODS else "other"
        REQUEST_SECONDS.labels(method, route, str(self.status)).observe(elapsed_ms / 1000)
        path, client = self.scope["path"], self.scope.get("client")
        if route.endswith("{token}"):
            path = route  # the address holds a secret
        if self._span is not None:
            name, error = f"{self.scope['method']} {route}", str(self.status) if self.status >= 500 else None
            self._span.end(name=name, error=error, http_route=route, http_response_status_code=self.status)
        write = log.debug if path in QUIET else log.info
        write(
            "request",
            method=self.scope["method"],
            path=path,
            status=self.status,
            duration_ms=round(elapsed_ms, 2),
            client=client[0] if client else None,
        )
        if record is None:
            return
        timing = RequestTiming(
            clock.now(),
            self.scope["state"].get(TENANT),
            self.scope["method"],
            path,
            route,
            self.status,
            round(elapsed_ms, 2),
            self.request_id,
            client[0] if client else None,
        )
        record(timing)
