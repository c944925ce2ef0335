"""Events as Server-Sent Events: one bare ASGI response a client, which rests in a single frame.

Measured: `fastapi.sse` holds 53 KB a client, StreamingResponse 29, this one 13 (tests/bench/sse_clients.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial

from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.api.http.middleware import STREAM
from app.api.streams.connection import CONNECTION_SLOTS, END, Door
from app.jobs.events.hub import EventHub
from app.jobs.events.subscribers import JobSubscriber, WireEvent
from app.jobs.events.tenant_events import TenantStreams
from app.jobs.events.tenant_subscriber import EventFilter, TenantSubscriber

# Browsers come back after so many milliseconds; spread, so that a restart does not bring all of them at once.
RETRY_MS = (1000, 4000)
KEEP_ALIVE = b": \n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def render(event: WireEvent) -> bytes:
    """The event on the wire; made once, however many follow."""
    if not event.wire:
        place = f"id: {event.id}\n" if event.id else ""
        event.wire = f"{place}event: {event.name}\ndata: {event.text}\n\n".encode()
    return event.wire


def _retry() -> bytes:
    return b"retry: %d\n\n" % random.randint(*RETRY_MS)


class SseDoor(Door):
    """A response that goes on."""

    __slots__ = ()

    async def start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await send({"type": "http.response.body", "body": _retry(), "more_body": True})

    async def put(self, send: Send, events: Sequence[WireEvent], more: bool) -> None:
        body = b"".join(map(render, events))
        if not more and not (events and events[-1].name == END):
            body += _retry()
        await send({"type": "http.response.body", "body": body or self.sign_of_life(), "more_body": more})

    def sign_of_life(self) -> bytes:
        return KEEP_ALIVE


class Client(SseDoor, JobSubscriber):
    """A follower of one job."""

    __slots__ = CONNECTION_SLOTS

    def __init__(self, hub: EventHub, job_id: str) -> None:
        super().__init__(hub, job_id)
        self.shut()


class TenantClient(SseDoor, TenantSubscriber):
    """A follower of a tenant."""

    __slots__ = CONNECTION_SLOTS

    def __init__(self, streams: TenantStreams, tenant: str, wanted: EventFilter, last_event_id: str | None) -> None:
        super().__init__(streams, tenant, wanted, last_event_id)
        self.shut()

    def sign_of_life(self) -> bytes:
        """Browsers remember the id: who wanted none of the last ten thousand events has not lost its place."""
        return f"id: {self.position}\n\n".encode() if self.position else KEEP_ALIVE


class EventStream(Response):
    """Leaves the client to the outermost layer, so that nothing of routing stays alive beside an open stream."""

    # FastAPI looks at these; the stream sends its own.
    body = b""
    background = None
    status_code = 200
    media_type = "text/event-stream"

    def __init__(self, client: SseDoor) -> None:
        self.client = client
        self.raw_headers = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[STREAM] = partial(self.client.run, receive, send)


class EndWaiter(JobSubscriber):
    """Waits for the end of a job, or of the process."""

    __slots__ = ("_over",)

    def __init__(self, hub: EventHub, job_id: str) -> None:
        super().__init__(hub, job_id)
        self._over = asyncio.Event()

    def wake(self) -> None:
        events = self.take()
        if self.hung_up or any(event.name == "end" for event in events):
            self._over.set()

    async def wait(self, tenant: str, timeout_s: float) -> None:
        """Returns at the end or after timeout_s; which of them, the ledger says. Raises NotFound."""
        await self.hub.open(self, tenant)
        try:
            self.wake()
            async with asyncio.timeout(timeout_s):
                await self._over.wait()
        except TimeoutError:
            return
        finally:
            self.hub.drop(self)
