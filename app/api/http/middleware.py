"""The outermost layer: one plain ASGI middleware that gives every exchange its id, limits, log line and metrics.

One and not six: each layer costs every open stream a frame and its closures.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http.errors import problem
from app.core import clock, trace
from app.core.logging import bind, get_logger
from app.core.metrics import REQUEST_SECONDS
from app.metrics.requests import RequestTiming
from app.tenants.keyring import KeyLease

log = get_logger("app.access")

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# What is asked every few seconds by machines is logged where somebody wants to see it.
QUIET = frozenset({"/livez", "/readyz", "/health", "/metrics"})
STATIC = "/static/"
STREAM = "millrace.stream"
# In a request's state: what ties an open stream to the key it came with.
HOLD = "key_hold"
# In a request's state: the tenant whose key it came with.
TENANT = "tenant"
# In a request's state: headers for its answer, whoever makes that.
EXTRA_HEADERS = "extra_headers"
POLICY_VIOLATION = 1008
# What an open stream still needs of its request; the rest (route, endpoint, exit stacks) is let go.
KEPT = frozenset({"type", "method", "path", "query_string", "http_version", "client", "state", "route"})

Record = Callable[[RequestTiming], None]


class Edge:
    """Wraps the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        larger: Mapping[str, int] | None = None,
        record: Record | None = None,
    ) -> None:
        """`larger`: paths whose bodies may be larger, with their own limits. `record` is told each request's timing."""
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.larger = larger or {}
        self.record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self.larger.get(scope["path"], self.max_body_bytes))
        bind(request_id=exchange.request_id)
        exchange.trace()
        stream = None
        try:
            refusal = exchange.refusal()
            await (refusal or self.app)(scope, exchange.receive, exchange.send)
            # A stream runs here, when the frames of routing and dependencies are gone: that halves what it holds.
            stream = scope.pop(STREAM, None)
            if stream is not None:
                for name in scope.keys() - KEPT:
                    del scope[name]
                hold = scope["state"].get(HOLD)
                await (stream() if hold is None else exchange.under(hold, stream))
        finally:
            exchange.finish(self.record if stream is None else None)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and stop of the process, and WebSockets: one ends with its key."""
        app = self.app
        if scope["type"] == "websocket":
            exchange = Exchange(scope, receive, send, self.max_body_bytes)
            bind(request_id=exchange.request_id)
            log.info("websocket", path=scope["path"], client=scope["client"][0] if scope.get("client") else None)
            app = exchange.refusal() or app
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


class Exchange:
    """One request and its answer."""

    __slots__ = ("_complete", "_limit", "_receive", "_received", "_send", "_started", "request_id", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._limit = limit
        self._received = 0
        self._started = clock.monotonic()
        self._complete = False
        self.status = 0
        self.request_id = self._identify()
        scope.setdefault("state", {})["request_id"] = self.request_id

    def _identify(self) -> str:
        """The caller's id where it is one: short, printable, ASCII. Else a fresh one."""
        given = self._header(b"x-request-id")
        return given.decode("ascii") if given and REQUEST_ID.fullmatch(given) else str(uuid.uuid4())

    def trace(self) -> None:
        """What is started or called for this request belongs to the caller's trace."""
        given = self._header(b"traceparent")
        traceparent = trace.checked(given.decode("latin-1")) if given else None
        trace.enter(traceparent)
        if traceparent is not None:
            bind(trace_id=trace.trace_id(traceparent))

    def _header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.scope["headers"] if key == name), None)

    def refusal(self) -> ASGIApp | None:
        """The answer to a request that no route should see."""
        scope = self.scope
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return problem(scope, 400, "the address contains a NUL character", code="nul_character")
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
        return message

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

    async def under(self, hold: KeyLease, stream: Callable[[], Awaitable[None]]) -> None:
        """The stream, which ends when its key stops counting."""
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
        """Count, log and record; the route's pattern is counted, never the address, which anybody may make up.

        Not recorded: probes and files, which machines ask for all day and which would hide the work; and streams,
        which last as long as their readers like.
        """
        elapsed_ms = self._elapsed_ms()
        route = getattr(self.scope.get("route"), "path", "unmatched")
        REQUEST_SECONDS.labels(self.scope["method"], route, str(self.status)).observe(elapsed_ms / 1000)
        path, client = self.scope["path"], self.scope.get("client")
        if route.endswith("{token}"):
            path = route  # the address holds a secret
        write = log.debug if path in QUIET else log.info
        write(
            "request",
            method=self.scope["method"],
            path=path,
            status=self.status,
            duration_ms=round(elapsed_ms, 2),
            client=client[0] if client else None,
        )
        if record is None or path in QUIET or STATIC in path:
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
