"""One subscriber of all of a tenant's events: a filter, a bounded queue and a position in the tenant's stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from app.core import clock
from app.jobs.events.subscribers import Subscriber

# A subscriber with more waiting events reads them from Redis later, at its own pace.
MAX_WAITING_TENANT_EVENTS = 500
POSITION = re.compile(r"([0-9]{1,18})-([0-9]{1,18})", re.ASCII)


class JobFacts(NamedTuple):
    """Facts about a job that never change and are not in its events."""

    kind: str | None = None
    queue: str | None = None
    document_id: str | None = None


NO_FACTS = JobFacts()


class TenantEvent:
    """One event with its position in the tenant's stream; without one it is for this subscriber only."""

    __slots__ = ("facts", "id", "job_id", "name", "stage", "state", "text", "wire")

    def __init__(self, position: str, data: dict[str, Any], facts: JobFacts = NO_FACTS) -> None:
        self.id = position
        self.name = str(data["event"])
        self.state = data.get("state")
        self.stage = data.get("stage")
        self.job_id = data.get("job_id")
        self.facts = facts
        self.text = json.dumps({"id": position or None} | data | (facts._asdict() if position else {}))
        self.wire = b""

    @classmethod
    def notice(cls, name: str, position: str | None) -> TenantEvent:
        """Return an `open` or `reset` event of now."""
        return cls(position or "", {"event": name, "at": clock.moment(clock.now())})


class TenantEventPage(NamedTuple):
    """Events after a position. `end` is where the next page begins; `lost` if the position is not kept."""

    events: list[TenantEvent]
    end: str
    more: bool
    lost: bool


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Events a subscriber asks for; None means all. A kind may end in `*`. `may` are the kinds that it may see."""

    kinds: Sequence[str] | None = None
    states: Sequence[str] | None = None
    queues: Sequence[str] | None = None
    names: Sequence[str] | None = None
    document_id: str | None = None
    may: Sequence[str] | None = None

    def of(self, may: Sequence[str] | None) -> EventFilter:
        """Return the same filter for a subscriber that may see only these kinds."""
        return replace(self, may=may)

    def takes(self, event: TenantEvent) -> bool:
        facts = event.facts
        return (
            (self.names is None or event.name in self.names)
            and (self.states is None or event.state in self.states)
            and (self.queues is None or facts.queue in self.queues)
            and (self.document_id is None or facts.document_id == self.document_id)
            and (self.kinds is None or _matches(facts.kind, self.kinds))
            and (self.may is None or _matches(facts.kind, self.may))
        )


def _matches(kind: str | None, patterns: Iterable[str]) -> bool:
    return kind is not None and any(
        kind == pattern or (pattern.endswith("*") and kind.startswith(pattern[:-1])) for pattern in patterns
    )


class TenantHub(Protocol):
    """The part of the tenant streams that their subscribers call."""

    def drop(self, subscriber: TenantSubscriber) -> None: ...

    async def read_page(self, tenant: str, after: str | None) -> TenantEventPage | None: ...


class TenantSubscriber(Subscriber):
    """One subscriber of a tenant. `position` is that of the last event it got or that its filter refused."""

    __slots__ = ("_behind", "_gap", "_offered", "_opened", "filter", "position", "streams", "tenant", "waiting")

    def __init__(self, streams: TenantHub, tenant: str, filter: EventFilter, last_event_id: str | None = None) -> None:
        super().__init__()
        self.streams = streams
        self.tenant = tenant
        self.filter = filter
        self.waiting: list[TenantEvent] | None = None
        self.position = last_event_id if last_event_id and POSITION.fullmatch(last_event_id) else None
        self._offered: str | None = None
        self._opened = False
        self._behind = True
        self._gap = last_event_id is not None and self.position is None

    @property
    def is_due(self) -> bool:
        return bool(self.waiting) or self._behind or self.hung_up

    @property
    def is_open(self) -> bool:
        """True once it got its first event."""
        return self._opened

    def leave(self) -> None:
        self.streams.drop(self)

    def offer(self, event: TenantEvent) -> None:
        """Queue a live event that the filter takes; progress replaces progress of the same job and stage."""
        if self._behind or not is_after(event.id, self._offered or self.position):
            return
        self._offered = event.id
        if not self.filter.takes(event):
            if not self.waiting:
                self.position = event.id
            return
        waiting = self.waiting = self.waiting or []
        last = waiting[-1] if waiting else None
        if last and event.name == last.name == "progress" and (event.job_id, event.stage) == (last.job_id, last.stage):
            waiting[-1] = event
        else:
            waiting.append(event)
        if len(waiting) > MAX_WAITING_TENANT_EVENTS:
            self.fall_behind()
        self.wake()

    def fall_behind(self, *, gap: bool = False) -> None:
        """Read on from its position in Redis; `gap` if some events may be missing there, too."""
        self._behind, self.waiting, self._offered = True, None, None
        self._gap = self._gap or gap

    async def next(self) -> tuple[Sequence[TenantEvent], bool]:
        if self.hung_up:
            return self._take(), False
        if self._behind:
            return await self._catch_up(), True
        return self._take(), True

    def _take(self) -> list[TenantEvent]:
        events, self.waiting = self.waiting or [], None
        self.position = self._offered or self.position
        return events

    async def _catch_up(self) -> list[TenantEvent]:
        # From here on live events are queued, so that none falls between them and the page.
        self._behind, self.waiting, self._offered = False, None, None
        page = await self.streams.read_page(self.tenant, self.position)
        events: list[TenantEvent] = []
        position = self.position or (page.end if page else None)
        if not self._opened:
            self._opened = True
            events.append(TenantEvent.notice("open", position))
        if page is None:
            return events  # Redis is away; the subscriber falls behind when it is back
        if page.lost or self._gap:
            self._gap = False
            events.append(TenantEvent.notice("reset", position))
        events += [event for event in page.events if self.filter.takes(event)]
        self.position = page.end
        if page.more:
            self.fall_behind()
        else:
            self._skip_to(page.end)
        return events

    def _skip_to(self, end: str) -> None:
        """Drop the queued live events that the page already holds."""
        if self._offered and not is_after(self._offered, end):
            self._offered = self.waiting = None
        self.waiting = [event for event in self.waiting or () if is_after(event.id, end)]


def is_after(position: str, other: str | None) -> bool:
    """Return True if `position` lies behind `other` in the stream; every position lies behind None."""
    return other is None or _parse(position) > _parse(other)


def _parse(position: str) -> tuple[int, int]:
    first, _, second = position.partition("-")
    return int(first), int(second)
