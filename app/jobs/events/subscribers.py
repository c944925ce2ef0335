"""Who follows events, seen from the hub: what waits for each, bounded, whatever carries it to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from app.jobs.events.snapshot import Event

if TYPE_CHECKING:
    from app.jobs.events.hub import Hub

# Progress within a stage is replaced while it waits, so this many are changes: that reader does not read.
MOST_WAITING = 64


class Told(Protocol):
    """An event as doors see it: `wire` is theirs to fill, once for all who get it."""

    name: str
    text: str
    wire: bytes

    @property
    def id(self) -> str: ...


class Follower(ABC):
    """Whoever follows events over a connection; its door overrides `wake`.

    The slots with a line in front are the door's: they cannot come from two bases.
    """

    __slots__ = ("_protocol", "_pulse", "_send", "_writing", "hung_up")

    @property
    @abstractmethod
    def is_due(self) -> bool:
        """Whether there is something to be written."""

    @abstractmethod
    def leave(self) -> None:
        """Nothing is to be collected any more; harmless when repeated."""

    @abstractmethod
    async def next(self) -> tuple[Sequence[Told], bool]:
        """What is to be written now, and whether anything can follow it."""

    def hang_up(self) -> None:
        """The process stops, or what was followed is gone: nothing more will come."""
        self.hung_up = True
        self.wake()

    def keep_alive(self) -> None:  # noqa: B027  only some doors have something to say
        """Called every 15 s."""

    @abstractmethod
    def wake(self) -> None:
        """Something waits; must not block."""


class Watcher(Follower):
    """One follower of one job: what waits for it, bounded."""

    __slots__ = ("_begun", "_opening", "hub", "job_id", "overflowed", "waiting")

    def __init__(self, hub: Hub, job_id: str) -> None:
        self.hub = hub
        self.job_id = job_id
        self.waiting: list[Event] | None = None
        self.overflowed = False
        self.hung_up = False
        self._begun = False
        self._opening: Event | None = None

    def begin(self, first: list[Event]) -> None:
        """The opening goes first; of what came live meanwhile, only what it does not hold."""
        opening = first[:1]
        for event in first[1:]:
            if not event.falls_behind(opening[-1]):
                opening.append(event)
        last = self._opening = opening[-1]
        live = [event for event in self.waiting or [] if event.seq > last.seq and not event.falls_behind(last)]
        self.waiting = opening + live if last.name != "end" else opening
        self._begun = True

    def offer(self, event: Event) -> None:
        if self._opening is not None and event.falls_behind(self._opening):
            return
        if self.waiting is None:
            self.waiting = []
        last = self.waiting[-1] if self.waiting and self._begun else None
        if last is not None and event.name == last.name == "progress" and event.stage == last.stage:
            self.waiting[-1] = event
        else:
            self.waiting.append(event)
        if len(self.waiting) > MOST_WAITING and event.name != "end":
            self.waiting, self.overflowed = None, True
        if self._begun:
            self.wake()

    def take(self) -> list[Event]:
        taken, self.waiting = self.waiting or [], None
        return taken

    @property
    def is_due(self) -> bool:
        return bool(self.waiting) or self.overflowed or self.hung_up

    def leave(self) -> None:
        self.hub.drop(self)

    async def next(self) -> tuple[Sequence[Event], bool]:
        if self.overflowed:
            self.overflowed = False
            self.waiting = None
            now = await self.hub.snapshot(self.job_id)
            return ([], False) if now is None else ([now], now.name != "end")
        events = self.take()
        return events, not self.hung_up and not (events and events[-1].name == "end")
