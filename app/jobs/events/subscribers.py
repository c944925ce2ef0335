"""Subscribers of events as the hub sees them: a bounded queue each, whatever connection carries it to the client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from app.jobs.events.snapshot import StreamEvent

# Progress within a stage is merged while it waits, so this many are changes: the client does not read.
MAX_WAITING_EVENTS = 64


class WireEvent(Protocol):
    """An event as connections see it. They fill `wire` once for all subscribers that get the event."""

    name: str
    text: str
    wire: bytes

    @property
    def id(self) -> str: ...


class Subscriber(ABC):
    """A client that follows events; its connection implements `wake`."""

    __slots__ = ("hung_up",)

    def __init__(self) -> None:
        self.hung_up = False

    @property
    @abstractmethod
    def is_due(self) -> bool:
        """True if there is something to write."""

    @abstractmethod
    def leave(self) -> None:
        """Stop collecting events; may be repeated."""

    @abstractmethod
    async def next(self) -> tuple[Sequence[WireEvent], bool]:
        """Return the events to write now, and False if none can follow them."""

    def hang_up(self) -> None:
        """End the subscription: the process stops, or the job is gone."""
        self.hung_up = True
        self.wake()

    def keep_alive(self) -> None:  # noqa: B027  only some connections send a sign of life
        """Called every 15 s."""

    @abstractmethod
    def wake(self) -> None:
        """Write what waits, soon; must not block."""


class JobHub(Protocol):
    """The part of the hub that a job's subscribers call."""

    async def open(self, subscriber: JobSubscriber, tenant: str, last_event_id: str | None = None) -> bool: ...

    def drop(self, subscriber: JobSubscriber) -> None: ...

    async def snapshot(self, job_id: str) -> StreamEvent | None: ...


class JobSubscriber(Subscriber):
    """One subscriber of one job, with a bounded queue."""

    __slots__ = ("_begun", "_opening", "hub", "job_id", "overflowed", "waiting")

    def __init__(self, hub: JobHub, job_id: str) -> None:
        super().__init__()
        self.hub = hub
        self.job_id = job_id
        self.waiting: list[StreamEvent] | None = None
        self.overflowed = False
        self._begun = False
        self._opening: StreamEvent | None = None

    def begin(self, first: list[StreamEvent]) -> None:
        """Queue the opening, and behind it the live events that came while it was read and that it does not hold."""
        opening = first[:1]
        for event in first[1:]:
            if not event.falls_behind(opening[-1]):
                opening.append(event)
        last = self._opening = opening[-1]
        live = [event for event in self.waiting or [] if event.seq > last.seq and not event.falls_behind(last)]
        self.waiting = opening + live if last.name != "end" else opening
        self._begun = True

    def offer(self, event: StreamEvent) -> None:
        """Queue a live event; progress replaces progress of the same stage."""
        if self._opening is not None and event.falls_behind(self._opening):
            return
        if self.waiting is None:
            self.waiting = []
        last = self.waiting[-1] if self.waiting and self._begun else None
        if last is not None and event.name == last.name == "progress" and event.stage == last.stage:
            self.waiting[-1] = event
        else:
            self.waiting.append(event)
        if len(self.waiting) > MAX_WAITING_EVENTS and event.name != "end":
            self.waiting, self.overflowed = None, True
        if self._begun:
            self.wake()

    def take(self) -> list[StreamEvent]:
        """Return the queued events and empty the queue."""
        events, self.waiting = self.waiting or [], None
        return events

    @property
    def is_due(self) -> bool:
        return bool(self.waiting) or self.overflowed or self.hung_up

    def leave(self) -> None:
        self.hub.drop(self)

    async def next(self) -> tuple[Sequence[StreamEvent], bool]:
        if self.overflowed:
            self.overflowed = False
            self.waiting = None
            snapshot = await self.hub.snapshot(self.job_id)
            return ([], False) if snapshot is None else ([snapshot], snapshot.name != "end")
        events = self.take()
        return events, not self.hung_up and not (events and events[-1].name == "end")
