"""All events of a tenant's jobs for its subscribers: from their last position, then each live event.

Redis keeps a tenant's last 10,000 events for a day. A subscriber that begins, comes back, reads too slowly or was cut
off with Redis reads on from its position in that stream. If the position is no longer kept, or Redis was away and
events could not be published, a `reset` event says that some may be missing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core.db import read
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.events.subscription import Subscription
from app.jobs.events.tenant_subscriber import (
    NO_FACTS,
    POSITION,
    JobFacts,
    TenantEvent,
    TenantEventPage,
    TenantSubscriber,
    is_after,
)
from app.jobs.events.topics import Topic, Topics
from app.jobs.models import JobRow

log = get_logger(__name__)

CHANNEL = "t:"
MAX_PAGE_EVENTS = 500
MAX_UNSORTED_EVENTS = 5_000
MAX_CACHED_FACTS = 20_000
SQL_RETRY_S = 1.0
START = "0-0"


class TenantTopic(Topic[TenantSubscriber]):
    """A tenant with subscribers in this process; its events get their jobs' kinds before any subscriber gets them."""

    __slots__ = ("sorting", "unsorted")

    def __init__(self) -> None:
        super().__init__()
        self.unsorted: list[tuple[str, str]] = []
        self.sorting: asyncio.Task[None] | None = None

    def close(self) -> None:
        if self.sorting is not None:
            self.sorting.cancel()


class TenantStreams:
    """All subscribers of tenants in this process; part of the hub and on its loop."""

    def __init__(self, subscription: Subscription, on_count: Callable[[int], None]) -> None:
        self._subscription = subscription
        self._topics: Topics[TenantTopic, TenantSubscriber] = Topics(subscription, TenantTopic, on_count, CHANNEL)
        self._facts: dict[str, JobFacts] = {}
        self._closing = False

    def subscribers(self) -> list[TenantSubscriber]:
        return self._topics.subscribers()

    async def open(self, subscriber: TenantSubscriber) -> None:
        """Collect the tenant's events for this subscriber from now on. Raises Unavailable."""
        self._topics.add(subscriber.tenant, subscriber)
        try:
            await self._topics.wait_confirmed(subscriber.tenant)
        except BaseException:
            self.drop(subscriber)
            raise

    def drop(self, subscriber: TenantSubscriber) -> None:
        self._topics.drop(subscriber.tenant, subscriber)

    def hang_up(self) -> None:
        self._closing = True
        self._topics.hang_up()

    async def close(self) -> None:
        tasks = [topic.sorting for topic in self._topics.by_key.values() if topic.sorting is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def catch_up(self) -> None:
        """Have all subscribers read on in Redis, which is back; events that could not be published are a gap."""
        for tenant in tuple(self._topics.by_key):
            await self._topics.wait_confirmed(tenant)
        for subscriber in self.subscribers():
            subscriber.fall_behind(gap=subscriber.is_open)
            subscriber.wake()

    def on_event(self, tenant: str, text: str) -> None:
        topic = self._topics.get(tenant)
        position, _, event = text.partition(" ")
        if topic is None or not POSITION.fullmatch(position):
            return
        topic.unsorted.append((position, event))
        if len(topic.unsorted) > MAX_UNSORTED_EVENTS:
            topic.unsorted.clear()
            for subscriber in tuple(topic.subscribers):
                subscriber.fall_behind()
                subscriber.wake()
        elif topic.sorting is None or topic.sorting.done():
            topic.sorting = asyncio.create_task(self._sort(topic), name="events-sort")

    async def _sort(self, topic: TenantTopic) -> None:
        while topic.unsorted:
            batch, topic.unsorted = topic.unsorted, []
            for event in await self._with_facts(batch):
                for subscriber in tuple(topic.subscribers):
                    subscriber.offer(event)

    async def read_page(self, tenant: str, after: str | None) -> TenantEventPage | None:
        """Return the events after a position (None: no event, only the end of the stream); None while Redis is away."""
        page = await self._subscription.read_page(tenant, after or START, MAX_PAGE_EVENTS if after else 1)
        if page is None:
            return None
        last = page.last or START
        if after is None:
            return TenantEventPage([], last, more=False, lost=False)
        if is_after(after, last):
            return TenantEventPage([], last, more=False, lost=True)  # Redis was emptied since then
        lost = page.first is not None and is_after(page.first, after)
        more = len(page.events) == MAX_PAGE_EVENTS
        end = page.events[-1][0] if page.events else after
        return TenantEventPage(await self._with_facts(page.events), end, more, lost)

    async def _with_facts(self, texts: Sequence[tuple[str, str]]) -> list[TenantEvent]:
        """Return the events, each with its job's kind, queue and document."""
        events = [(position, data) for position, text in texts if (data := _parse(text)) is not None]
        facts = await self._read_facts({data["job_id"] for _, data in events})
        if facts is None:
            return []  # the process stops: the subscriber comes back and goes on after its last event
        return [TenantEvent(position, data, facts[data["job_id"]]) for position, data in events]

    async def _read_facts(self, ids: set[str]) -> dict[str, JobFacts] | None:
        """Read unknown facts from SQL, for as long as it takes: an event without a kind cannot be filtered.

        None while the process stops.
        """
        facts = {job_id: cached for job_id in ids if (cached := self._facts.get(job_id)) is not None}
        unknown = list(ids - facts.keys())
        if not unknown:
            return facts
        while not self._closing:
            try:
                read_facts = dict.fromkeys(unknown, NO_FACTS) | await read(_select_facts, unknown)
            except (Unavailable, ConfigError, SQLAlchemyError) as error:
                log.info("kinds_not_read", reason=str(error))
                await asyncio.sleep(SQL_RETRY_S)
                continue
            if len(self._facts) > MAX_CACHED_FACTS:
                self._facts.clear()
            self._facts |= read_facts
            return facts | read_facts
        return None


def _select_facts(session: Session, ids: Sequence[str]) -> dict[str, JobFacts]:
    facts = {}
    for start in range(0, len(ids), MAX_PAGE_EVENTS):
        query = sa.select(JobRow.id, JobRow.kind, JobRow.queue, JobRow.document_id)
        for row in session.execute(query.where(JobRow.id.in_(ids[start : start + MAX_PAGE_EVENTS]))):
            document_id = None if row.document_id is None else str(row.document_id)
            facts[row.id] = JobFacts(row.kind, row.queue, document_id)
    return facts


def _parse(text: str) -> dict[str, Any] | None:
    """Return the event's data, or None if the text is not an event: Redis may hold anything."""
    try:
        data = json.loads(text)
        if isinstance(data["event"], str) and isinstance(data["job_id"], str):
            return dict(data)
    except (ValueError, KeyError, TypeError):
        pass
    log.warning("event_not_readable", text=text[:200])
    return None
