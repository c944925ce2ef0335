"""All events of a tenant's jobs for whoever follows them: from where they left off, then each as it comes.

Redis keeps a tenant's last 10,000 events for a day, and its stream is what makes a follower whole: one that begins,
comes back, reads too slowly or was cut off with Redis reads on from its place there. Only where that place is gone, or
where Redis was away and nobody could tell it anything, a `reset` says that something may be missing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import read
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.events.subscribers import Follower
from app.jobs.events.subscription import Subscription
from app.jobs.models import JobRow

log = get_logger(__name__)

CHANNEL = "t:"
PAGE = 500
# Whoever lets more wait reads them from Redis later, at their own pace.
MOST_WAITING = 500
MOST_UNSORTED = 5_000
MOST_FACTS = 20_000
SQL_AGAIN_S = 1.0
PLACE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})", re.ASCII)
START = "0-0"

Place = tuple[int, int]


class Fact(NamedTuple):
    """What never changes about a job, and is not in its events."""

    kind: str | None = None
    queue: str | None = None
    document_id: str | None = None


_NOTHING = Fact()


class TenantEvent:
    """One event with its place in the tenant's stream (none: it is only said to this follower)."""

    __slots__ = ("fact", "id", "job_id", "name", "stage", "state", "text", "wire")

    def __init__(self, place: str, data: dict[str, Any], fact: Fact = _NOTHING) -> None:
        self.id = place
        self.name = str(data["event"])
        self.state = data.get("state")
        self.stage = data.get("stage")
        self.job_id = data.get("job_id")
        self.fact = fact
        self.text = json.dumps({"id": place or None} | data | (fact._asdict() if place else {}))
        self.wire = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events to tell; None means all. A kind may end in `*`. `may` are the kinds that the follower may see."""

    kinds: Sequence[str] | None = None
    states: Sequence[str] | None = None
    queues: Sequence[str] | None = None
    names: Sequence[str] | None = None
    document_id: str | None = None
    may: Sequence[str] | None = None

    def of(self, may: Sequence[str] | None) -> Wanted:
        """The same for a follower that may see only these kinds."""
        return replace(self, may=may)

    def takes(self, event: TenantEvent) -> bool:
        fact = event.fact
        return (
            (self.names is None or event.name in self.names)
            and (self.states is None or event.state in self.states)
            and (self.queues is None or fact.queue in self.queues)
            and (self.document_id is None or fact.document_id == self.document_id)
            and (self.kinds is None or _among(fact.kind, self.kinds))
            and (self.may is None or _among(fact.kind, self.may))
        )


def _among(kind: str | None, patterns: Iterable[str]) -> bool:
    return kind is not None and any(
        kind == given or (given.endswith("*") and kind.startswith(given[:-1])) for given in patterns
    )


class TenantWatcher(Follower):
    """One follower of a tenant. `place` is the last that it was told or had no wish for."""

    __slots__ = ("_behind", "_gap", "_offered", "_opened", "place", "streams", "tenant", "waiting", "wanted")

    def __init__(self, streams: TenantStreams, tenant: str, wanted: Wanted, last_event_id: str | None = None) -> None:
        self.streams = streams
        self.tenant = tenant
        self.wanted = wanted
        self.hung_up = False
        self.waiting: list[TenantEvent] | None = None
        self.place = last_event_id if last_event_id and PLACE.fullmatch(last_event_id) else None
        self._offered: str | None = None
        self._opened = False
        self._behind = True
        self._gap = last_event_id is not None and self.place is None

    @property
    def is_due(self) -> bool:
        return bool(self.waiting) or self._behind or self.hung_up

    @property
    def is_open(self) -> bool:
        """Whether it has been told anything."""
        return self._opened

    def leave(self) -> None:
        self.streams.drop(self)

    def offer(self, event: TenantEvent) -> None:
        if self._behind or not _is_after(event.id, self._offered or self.place):
            return
        self._offered = event.id
        if not self.wanted.takes(event):
            if not self.waiting:
                self.place = event.id
            return
        waiting = self.waiting = self.waiting or []
        last = waiting[-1] if waiting else None
        if last and event.name == last.name == "progress" and (event.job_id, event.stage) == (last.job_id, last.stage):
            waiting[-1] = event
        else:
            waiting.append(event)
        if len(waiting) > MOST_WAITING:
            self.fall_behind()
        self.wake()

    def fall_behind(self, *, gap: bool = False) -> None:
        """Read on from its place in Redis; `gap` when some events may not even be there."""
        self._behind, self.waiting, self._offered = True, None, None
        self._gap = self._gap or gap

    async def next(self) -> tuple[Sequence[TenantEvent], bool]:
        if self.hung_up:
            return self._take(), False
        if self._behind:
            return await self._catch_up(), True
        return self._take(), True

    def _take(self) -> list[TenantEvent]:
        taken, self.waiting = self.waiting or [], None
        self.place = self._offered or self.place
        return taken

    async def _catch_up(self) -> list[TenantEvent]:
        # From now on live events are kept, so that none falls between them and the page.
        self._behind, self.waiting, self._offered = False, None, None
        page = await self.streams.page(self.tenant, self.place)
        said: list[TenantEvent] = []
        place = self.place or (page.end if page else None)
        if not self._opened:
            self._opened = True
            said.append(_said("open", place))
        if page is None:
            return said  # Redis is away; who follows falls behind when it is back
        if page.lost or self._gap:
            self._gap = False
            said.append(_said("reset", place))
        said += [event for event in page.events if self.wanted.takes(event)]
        self.place = page.end
        if page.more:
            self.fall_behind()
        else:
            self._skip_to(page.end)
        return said

    def _skip_to(self, end: str) -> None:
        """Of what came live meanwhile, only what the page has not told."""
        if self._offered and not _is_after(self._offered, end):
            self._offered = self.waiting = None
        self.waiting = [event for event in self.waiting or () if _is_after(event.id, end)]


def _said(name: str, place: str | None) -> TenantEvent:
    return TenantEvent(place or "", {"event": name, "at": clock.moment(clock.now())})


class Page(NamedTuple):
    """Events after a place; `end` is where the next page begins, `lost` whether the place is not known (any more)."""

    events: list[TenantEvent]
    end: str
    more: bool
    lost: bool


class TenantTopic:
    """A tenant that is followed here: events are sorted into kinds before anybody hears of them."""

    __slots__ = ("sorting", "unsorted", "watchers")

    def __init__(self) -> None:
        self.watchers: set[TenantWatcher] = set()
        self.unsorted: list[tuple[str, str]] = []
        self.sorting: asyncio.Task[None] | None = None


class TenantStreams:
    """All followers of tenants in this process; part of the hub and on its loop."""

    def __init__(self, subscription: Subscription, counted: Callable[[int], None]) -> None:
        self._subscription = subscription
        self._counted = counted
        self._topics: dict[str, TenantTopic] = {}
        self._facts: dict[str, Fact] = {}
        self._closing = False

    def watchers(self) -> list[TenantWatcher]:
        return [watcher for topic in self._topics.values() for watcher in topic.watchers]

    async def open(self, watcher: TenantWatcher) -> None:
        """Collect the tenant's events for this watcher from now on. Raises Unavailable."""
        if self._closing:
            raise Unavailable("this process is stopping", code="stopping", retry_after_s=1)
        topic = self._topics.get(watcher.tenant)
        if topic is None:
            topic = self._topics[watcher.tenant] = TenantTopic()
            self._subscription.want(CHANNEL + watcher.tenant)
        topic.watchers.add(watcher)
        self._counted(1)
        try:
            await self._subscription.confirmed(CHANNEL + watcher.tenant)
        except BaseException:
            self.drop(watcher)
            raise

    def drop(self, watcher: TenantWatcher) -> None:
        topic = self._topics.get(watcher.tenant)
        if topic is None or watcher not in topic.watchers:
            return
        topic.watchers.remove(watcher)
        self._counted(-1)
        if not topic.watchers:
            del self._topics[watcher.tenant]
            self._subscription.unwant(CHANNEL + watcher.tenant)
            if topic.sorting is not None:
                topic.sorting.cancel()

    def hang_up(self) -> None:
        self._closing = True
        for watcher in self.watchers():
            watcher.hang_up()

    async def close(self) -> None:
        tasks = [topic.sorting for topic in self._topics.values() if topic.sorting is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reconnected(self) -> None:
        """Redis is back: what it was told meanwhile is read there, and what nobody could tell it is a gap."""
        for tenant in tuple(self._topics):
            await self._subscription.confirmed(CHANNEL + tenant)
        for watcher in self.watchers():
            watcher.fall_behind(gap=watcher.is_open)
            watcher.wake()

    def on_event(self, tenant: str, text: str) -> None:
        topic = self._topics.get(tenant)
        place, _, event = text.partition(" ")
        if topic is None or not PLACE.fullmatch(place):
            return
        topic.unsorted.append((place, event))
        if len(topic.unsorted) > MOST_UNSORTED:
            topic.unsorted.clear()
            for watcher in tuple(topic.watchers):
                watcher.fall_behind()
                watcher.wake()
        elif topic.sorting is None or topic.sorting.done():
            topic.sorting = asyncio.create_task(self._sort(topic), name="events-sort")

    async def _sort(self, topic: TenantTopic) -> None:
        while topic.unsorted:
            batch, topic.unsorted = topic.unsorted, []
            for event in await self._told(batch):
                for watcher in tuple(topic.watchers):
                    watcher.offer(event)

    async def page(self, tenant: str, after: str | None) -> Page | None:
        """What follows a place (None: nothing, only where the stream ends); None while Redis is away."""
        if not self._subscription.connected:
            return None
        kept = await self._subscription.kept(tenant, after or START, PAGE if after else 1)
        if kept is None:
            return None
        last = kept.last or START
        if after is None:
            return Page([], last, more=False, lost=False)
        if _is_after(after, last):
            return Page([], last, more=False, lost=True)  # another life of Redis
        lost = kept.first is not None and _is_after(kept.first, after)
        more = len(kept.events) == PAGE
        return Page(await self._told(kept.events), kept.events[-1][0] if kept.events else after, more, lost)

    async def _told(self, kept: Sequence[tuple[str, str]]) -> list[TenantEvent]:
        """The events, each with its job's kind, queue and document."""
        found = [(place, data) for place, text in kept if (data := _parsed(text)) is not None]
        facts = await self._facts_about({data["job_id"] for _, data in found})
        if facts is None:
            return []  # the process stops: who follows comes back, and goes on after the last that it was told
        return [TenantEvent(place, data, facts[data["job_id"]]) for place, data in found]

    async def _facts_about(self, ids: set[str]) -> dict[str, Fact] | None:
        """Asks SQL where it must, for as long as it takes: events without a kind could not be sorted."""
        known = {job_id: fact for job_id in ids if (fact := self._facts.get(job_id)) is not None}
        unknown = list(ids - known.keys())
        if not unknown:
            return known
        while not self._closing:
            try:
                found = dict.fromkeys(unknown, _NOTHING) | await read(_facts_of, unknown)
            except (Unavailable, ConfigError, SQLAlchemyError) as error:
                log.info("kinds_not_read", reason=str(error))
                await asyncio.sleep(SQL_AGAIN_S)
                continue
            if len(self._facts) > MOST_FACTS:
                self._facts.clear()
            self._facts |= found
            return known | found
        return None


def _facts_of(session: Session, ids: Sequence[str]) -> dict[str, Fact]:
    found = {}
    for start in range(0, len(ids), PAGE):
        query = sa.select(JobRow.id, JobRow.kind, JobRow.queue, JobRow.document_id)
        for row in session.execute(query.where(JobRow.id.in_(ids[start : start + PAGE]))):
            found[row.id] = Fact(row.kind, row.queue, None if row.document_id is None else str(row.document_id))
    return found


def _parsed(text: str) -> dict[str, Any] | None:
    """The event's data, None for what is none: Redis may hold anything."""
    try:
        data = json.loads(text)
        if isinstance(data["event"], str) and isinstance(data["job_id"], str):
            return dict(data)
    except (ValueError, KeyError, TypeError):
        pass
    log.warning("event_not_readable", text=text[:200])
    return None


def _is_after(one: str, other: str | None) -> bool:
    return other is None or _place(one) > _place(other)


def _place(text: str) -> Place:
    first, _, second = text.partition("-")
    return int(first), int(second)
