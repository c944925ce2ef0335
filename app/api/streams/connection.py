"""Connections that send events: an idle one waits for its disconnect, and a short task writes new events."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence

from starlette.types import Receive, Send

from app.jobs.events.subscribers import Subscriber, WireEvent

END = "end"
# Attributes of a connection. Each concrete class declares them as slots: two bases with slots cannot be combined.
CONNECTION_SLOTS = ("_protocol", "_pulse", "_send", "_writing")
_NO_SLOTS: tuple[str, ...] = ()


class EventConnection(Subscriber):
    """One connection. Subclasses define the format of events, the start and the end."""

    __slots__ = _NO_SLOTS

    _pulse: bool
    _send: Send | None
    _writing: asyncio.Task[None] | None

    def reset(self) -> None:
        """Set the state before run()."""
        self._send, self._writing, self._pulse = None, None, False

    async def run(self, receive: Receive, send: Send) -> None:
        """Send events until the last one is sent, the client disconnects or the process stops."""
        try:
            await self.start(send)
            self._send = send
            self.wake()
            # The last message ends this loop as well.
            while not (await receive())["type"].endswith(".disconnect"):
                pass
        finally:
            self.leave()
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
            while more and (self.is_due or self._pulse):
                pulse, self._pulse = self._pulse, False
                events, more = await self.next()
                if events or pulse or not more:
                    await self.put(send, events, more)
            if not more:
                self._send = None
        except OSError:  # the client is gone; its disconnect message follows
            self._send = None
        finally:
            self._writing = None

    @abstractmethod
    async def start(self, send: Send) -> None:
        """Open the connection."""

    @abstractmethod
    async def put(self, send: Send, events: Sequence[WireEvent], more: bool) -> None:
        """Write the events, or a keep-alive without any, and the end of the connection unless `more`."""
