"""The same events over WebSocket: one JSON text each, the connection closed after the last.

Close codes: 1000 all has been told; 1012 the process stops, come back and go on; 1008 the key was revoked.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Send
from starlette.websockets import WebSocket

from app.api.streams.connection import CONNECTION_SLOTS, END, Door
from app.jobs.events.hub import EventHub
from app.jobs.events.subscribers import JobSubscriber, WireEvent
from app.jobs.events.tenant_events import TenantStreams
from app.jobs.events.tenant_subscriber import EventFilter, TenantSubscriber

PROTOCOL = "millrace"
# Browsers cannot set headers here, so a key may come as a subprotocol: new WebSocket(url, ["millrace", "bearer.KEY"]).
BEARER = "bearer."
TOLD, COME_BACK = 1000, 1012


def offered_key(websocket: WebSocket) -> bytes | None:
    """The key among the subprotocols that the client offers."""
    keys = [name.removeprefix(BEARER) for name in websocket.scope["subprotocols"] if name.startswith(BEARER)]
    return b"Bearer " + keys[0].encode("latin-1") if keys else None


class SocketDoor(Door):
    """A connection that is spoken to and not listened to. The server pings it; nothing else keeps it alive."""

    __slots__ = ()

    def offered(self, websocket: WebSocket) -> None:
        """Of what the client offers, ours is taken."""
        self._protocol = PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None

    async def start(self, send: Send) -> None:
        await send({"type": "websocket.accept", "subprotocol": self._protocol, "headers": []})

    async def put(self, send: Send, events: Sequence[WireEvent], more: bool) -> None:
        for event in events:
            await send({"type": "websocket.send", "text": event.text})
        if not more:
            told = bool(events) and events[-1].name == END
            code, reason = (TOLD, "ended") if told else (COME_BACK, "stopping")
            await send({"type": "websocket.close", "code": code, "reason": reason})

    async def say_nothing(self, send: Send) -> None:
        """Open and close: the client has heard everything up to the end."""
        await self.start(send)
        await send({"type": "websocket.close", "code": TOLD, "reason": "ended"})

    def keep_alive(self) -> None:
        """The server's pings do."""


class SocketClient(SocketDoor, JobSubscriber):
    """A follower of one job."""

    __slots__ = CONNECTION_SLOTS

    def __init__(self, websocket: WebSocket, hub: EventHub, job_id: str) -> None:
        super().__init__(hub, job_id)
        self.shut()
        self.offered(websocket)


class TenantSocket(SocketDoor, TenantSubscriber):
    """A follower of a tenant."""

    __slots__ = CONNECTION_SLOTS

    def __init__(
        self, websocket: WebSocket, streams: TenantStreams, tenant: str, wanted: EventFilter, last_event_id: str | None
    ) -> None:
        super().__init__(streams, tenant, wanted, last_event_id)
        self.shut()
        self.offered(websocket)
