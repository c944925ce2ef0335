"""How events leave the house: a follower at rest waits for its disconnect, and a short task writes what comes."""

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


class Door(Subscriber):
    """One connection; how events look on it, and how it begins and ends, is its subclasses'."""

    __slots__ = _NO_SLOTS

    _pulse: bool
    _send: Send | None
    _writing: asyncio.Task[None] | None

    def shut(self) -> None:
        """The state before run()."""
        self._send, self._writing, self._pulse = None, None, False

    async def run(self, receive: Receive, send: Send) -> None:
        """The whole exchange; returns when all has been told, the client is gone or the process stops."""
        try:
            await self.start(send)
            self._send = send
            self.wake()
            # After the last message this is answered too.
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
        except OSError:  # the client has gone; its disconnect comes
            self._send = None
        finally:
            self._writing = None

    @abstractmethod
    async def start(self, send: Send) -> None:
        """Open the exchange."""

    @abstractmethod
    async def put(self, send: Send, events: Sequence[WireEvent], more: bool) -> None:
        """Write the events, or a sign of life where there are none, and unless `more` follows the end of it all."""
