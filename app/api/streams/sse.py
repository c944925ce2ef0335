"""Events as Server-Sent Events: one plain ASGI response a client, which needs a single frame while idle.

Measured: `fastapi.sse` holds 53 KB a client, StreamingResponse 29, this one 13 (tests/bench/sse_clients.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.api.http.middleware import STREAM
from app.api.streams.connection import CONNECTION_SLOTS, END, EventConnection
from app.jobs.events.hub import EventHub
from app.jobs.events.subscribers import JobSubscriber, WireEvent
from app.jobs.events.tenant_events import TenantStreams
from app.jobs.events.tenant_subscriber import EventFilter, TenantSubscriber

# Browsers reconnect after this time. It is random, so that not all of them reconnect at once after a restart.
RETRY_MS = (1000, 4000)
KEEP_ALIVE = b": \n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def render(event: WireEvent) -> bytes:
    """Return the event on the wire; rendered once for all followers."""
    if not event.wire:
        place = f"id: {event.id}\n" if event.id else ""
        event.wire = f"{place}event: {event.name}\ndata: {event.text}\n\n".encode()
    return event.wire


def _retry() -> bytes:
    return b"retry: %d\n\n" % random.randint(*RETRY_MS)


class SseConnection(EventConnection):
    """A response that stays open."""

    __slots__ = ()

    async def start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await send({"type": "http.response.body", "body": _retry(), "more_body": True})

    async def put(self, send: Send, events: Sequence[WireEvent], more: bool) -> None:
        body = b"".join(map(render, events))
        if not more and not (events and events[-1].name == END):
            body += _retry()
        await send({"type": "http.response.body", "body": body or self.keep_alive_frame(), "more_body": more})

    def keep_alive_frame(self) -> bytes:
        return KEEP_ALIVE


class JobSseConnection(SseConnection, JobSubscriber):
    """The events of one job."""

    __slots__ = CONNECTION_SLOTS

    def __init__(self, hub: EventHub, job_id: str) -> None:
        super().__init__(hub, job_id)
        self.reset()


class TenantSseConnection(SseConnection, TenantSubscriber):
    """The events of a tenant."""

    __slots__ = CONNECTION_SLOTS

    def __init__(self, streams: TenantStreams, tenant: str, wanted: EventFilter, last_event_id: str | None) -> None:
        super().__init__(streams, tenant, wanted, last_event_id)
        self.reset()

    def keep_alive_frame(self) -> bytes:
        """Send the position, which browsers remember: a client whose filter matched no event keeps its place."""
        return f"id: {self.position}\n\n".encode() if self.position else KEEP_ALIVE


class EventStream(Response):
    """Hands the connection to the outermost layer, so that no frame of routing stays alive with an open stream."""

    # FastAPI reads these; the stream sends its own headers.
    body = b""
    background = None
    status_code = 200
    media_type = "text/event-stream"

    def __init__(self, connection: SseConnection) -> None:
        self.connection = connection
        self.raw_headers = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[STREAM] = partial(self.connection.run, receive, send)
