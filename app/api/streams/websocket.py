"""Events over WebSocket: one JSON text each; the connection closes after the last.

Close codes: 1000 after the last event; 1012 the process stops, reconnect; 1008 the key was revoked.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Send
from starlette.websockets import WebSocket

from app.api.streams.connection import CONNECTION_SLOTS, END, EventConnection
from app.jobs.events.hub import EventHub
from app.jobs.events.subscribers import JobSubscriber, WireEvent
from app.jobs.events.tenant_events import TenantStreams
from app.jobs.events.tenant_subscriber import EventFilter, TenantSubscriber

PROTOCOL = "millrace"
ENDED, RESTARTING = 1000, 1012


class SocketConnection(EventConnection):
    """A connection that only sends; the pings of the server keep it alive."""

    __slots__ = ()

    def accept_protocol(self, websocket: WebSocket) -> None:
        """Accept our subprotocol if the client offers it."""
        self._protocol = PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None

    async def start(self, send: Send) -> None:
        await send({"type": "websocket.accept", "subprotocol": self._protocol, "headers": []})

    async def put(self, send: Send, events: Sequence[WireEvent], more: bool) -> None:
        for event in events:
            await send({"type": "websocket.send", "text": event.text})
        if not more:
            ended = bool(events) and events[-1].name == END
            code, reason = (ENDED, "ended") if ended else (RESTARTING, "stopping")
            await send({"type": "websocket.close", "code": code, "reason": reason})

    async def close_as_ended(self, send: Send) -> None:
        """Open and close: the client has received all events up to the end."""
        await self.start(send)
        await send({"type": "websocket.close", "code": ENDED, "reason": "ended"})

    def keep_alive(self) -> None:
        """Do nothing: the server pings."""


class JobSocket(SocketConnection, JobSubscriber):
    """The events of one job."""

    __slots__ = CONNECTION_SLOTS

    def __init__(self, websocket: WebSocket, hub: EventHub, job_id: str) -> None:
        super().__init__(hub, job_id)
        self.reset()
        self.accept_protocol(websocket)


class TenantSocket(SocketConnection, TenantSubscriber):
    """The events of a tenant."""

    __slots__ = CONNECTION_SLOTS

    def __init__(
        self, websocket: WebSocket, streams: TenantStreams, tenant: str, wanted: EventFilter, last_event_id: str | None
    ) -> None:
        super().__init__(streams, tenant, wanted, last_event_id)
        self.reset()
        self.accept_protocol(websocket)
