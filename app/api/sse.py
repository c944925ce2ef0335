"""A job's events as Server-Sent Events: one bare ASGI response a client, which rests in a single frame.

Measured: `fastapi.sse` holds 53 KB a client, StreamingResponse 29, this one 13 (tests/bench/sse_clients.py).
"""

from __future__ import annotations

import asyncio
import random
from functools import partial

from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.api.edge import STREAM
from app.jobs.replay import Event
from app.jobs.stream import Hub, Watcher

# Browsers come back after so many milliseconds; spread, so that a restart does not bring all of them at once.
RETRY_MS = (1000, 4000)
KEEP_ALIVE = b": \n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def render(event: Event) -> bytes:
    """The event on the wire; made once, however many follow."""
    if not event.wire:
        event.wire = f"id: {event.seq}\nevent: {event.name}\ndata: {event.text}\n\n".encode()
    return event.wire


def _retry() -> bytes:
    return b"retry: %d\n\n" % random.randint(*RETRY_MS)


class Client(Watcher):
    """A follower at the other end of a response. Idle, it waits for the disconnect; a short task writes what comes."""

    __slots__ = ("_pulse", "_send", "_writing")

    def __init__(self, hub: Hub, job_id: str) -> None:
        super().__init__(hub, job_id)
        self._send: Send | None = None
        self._writing: asyncio.Task[None] | None = None
        self._pulse = False

    async def run(self, receive: Receive, send: Send) -> None:
        """The whole response; returns when the job has ended, the client is gone or the process stops."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await send({"type": "http.response.body", "body": _retry(), "more_body": True})
            self._send = send
            self.wake()
            # After the last body this is answered too.
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self.hub.drop(self)
            if self._writing is not None:
                self._writing.cancel()

    def wake(self) -> None:
        if self._send is not None and self._writing is None:
            self._writing = asyncio.create_task(self._write(self._send))

    def keep_alive(self) -> None:
        if self._writing is None:
            self._pulse = True
            self.wake()

    async def _write(self, send: Send) -> None:
        try:
            more = True
            while more and (self.waiting or self.overflowed or self.hung_up or self._pulse):
                body, more = await self._next()
                await send({"type": "http.response.body", "body": body, "more_body": more})
            if not more:
                self._send = None
        finally:
            self._writing = None

    async def _next(self) -> tuple[bytes, bool]:
        """What is to be written now, and whether anything can follow it."""
        self._pulse = False
        if self.overflowed:
            self.overflowed = False
            self.waiting = None
            now = await self.hub.snapshot(self.job_id)
            if now is None:
                return _retry(), False
            return render(now), now.name != "end"
        events = self.take()
        body = b"".join(map(render, events))
        if events and events[-1].name == "end":
            return body, False
        if self.hung_up:
            return body + _retry(), False
        return body or KEEP_ALIVE, True


class EventStream(Response):
    """Leaves the client to the outermost layer, so that nothing of routing stays alive beside an open stream."""

    # FastAPI looks at these; the stream sends its own.
    body = b""
    background = None
    status_code = 200
    media_type = "text/event-stream"

    def __init__(self, client: Client) -> None:
        self.client = client
        self.raw_headers = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[STREAM] = partial(self.client.run, receive, send)


class EndWaiter(Watcher):
    """Waits for the end of a job, or of the process."""

    __slots__ = ("_over",)

    def __init__(self, hub: Hub, job_id: str) -> None:
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
