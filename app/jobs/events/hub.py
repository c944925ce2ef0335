"""Events of a job for its subscribers: a snapshot from the ledger, the events Redis kept, then each live event.

There is one hub a process. The ledger holds the state: the hub reads all followed jobs every few seconds (each second
while Redis is away). A lost message can delay an end and never hide it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from app.core.db import read
from app.core.errors import ConfigError, NotFound, Unavailable
from app.core.ids import is_uuid
from app.core.logging import get_logger
from app.core.metrics import STREAMS
from app.jobs.events.batcher import Batcher
from app.jobs.events.snapshot import JobSnapshot, StreamEvent, opening_events, read_snapshots
from app.jobs.events.subscribers import JobSubscriber, Subscriber
from app.jobs.events.subscription import NOTICES, Subscription
from app.jobs.events.tenant_events import CHANNEL, TenantStreams
from app.jobs.events.topics import Topic, Topics

log = get_logger(__name__)

POLL_S = 1.0
# With Redis present the ledger is read at every fifth turn.
POLLS_WITH_REDIS = 5
KEEP_ALIVE_S = 15.0
SUBSCRIBERS_PER_TURN = 200
NUMBER = re.compile(r"[0-9]{1,15}")


class JobTopic(Topic[JobSubscriber]):
    """A job with subscribers in this process."""

    __slots__ = ("last", "polled", "turns")

    def __init__(self) -> None:
        super().__init__()
        self.last: StreamEvent | None = None
        self.polled: JobSnapshot | None = None
        self.turns = 0

    @property
    def seq(self) -> int:
        return self.last.seq if self.last else 0

    def take(self, event: StreamEvent) -> None:
        """Offer the event to every subscriber if it is news."""
        last = self.last
        # A state that progress has already shown would only take the bar's numbers away.
        if event.is_news_after(last) and not (last and event.name == "state" and event.repeats(last)):
            self.last = event
            self.turns += 1
            for subscriber in tuple(self.subscribers):
                subscriber.offer(event)

    def compare(self, snapshot: JobSnapshot, *, blind: bool) -> None:
        """Offer what only the ledger has; `blind` while Redis is away and rows are the only source."""
        before, self.polled = self.polled, snapshot
        last = self.last
        seq = max(snapshot.seq, last.seq if last else 0)
        if snapshot.has_ended:
            if last is None or (last.name, last.state) != ("end", snapshot.state):
                self.take(snapshot.event(seq + 1, "end"))
        elif last is None or (snapshot.state, snapshot.attempt) != (last.state, last.attempt):
            self.take(snapshot.event(seq + 1 if last and seq == last.seq else seq))
        elif snapshot.seq > last.seq or (blind and before is not None and _has_advanced(before, snapshot)):
            self.take(snapshot.event(max(snapshot.seq, last.seq + 1), "progress"))


def _has_advanced(before: JobSnapshot, now: JobSnapshot) -> bool:
    was, is_ = before.progress or {}, now.progress or {}
    return was != is_ and (is_.get("percent") or 0) >= (was.get("percent") or 0)


class EventHub:
    """All subscribers of this process. It lives on one loop, where `start()` and `close()` are called."""

    def __init__(self, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._keep_alive_s = keep_alive_s
        self._subscription = Subscription(self._on_event, self._catch_up)
        self._jobs: Topics[JobTopic, JobSubscriber] = Topics(self._subscription, JobTopic, self._count)
        self.tenants = TenantStreams(self._subscription, self._count)
        # Called with the notices of other processes that are not events; app/core/redis.py lists them.
        self.on_notice: Callable[[str], None] = log.debug
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshots = Batcher(_read_each, name="events-standings")
        self.subscriber_count = 0
        self.turns = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def has_redis(self) -> bool:
        return self._subscription.connected

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._subscription.start()
        self._tasks = [
            asyncio.create_task(self._poll(), name="events-poll"),
            asyncio.create_task(self._keep_alive(), name="events-keep-alive"),
        ]

    def hang_up(self) -> None:
        """End every stream and every wait; new ones are refused."""
        self._jobs.hang_up()
        self.tenants.hang_up()

    def hang_up_soon(self) -> None:
        """Like `hang_up`, from another thread or a signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.hang_up)

    async def close(self) -> None:
        self.hang_up()
        tasks = [*self._tasks, *([self._snapshots.task] if self._snapshots.task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.tenants.close()
        await self._subscription.close()

    def drop(self, subscriber: JobSubscriber) -> None:
        self._jobs.drop(subscriber.job_id, subscriber)

    def _count(self, more: int) -> None:
        self.subscriber_count += more
        STREAMS.set(self.subscriber_count)

    async def open(self, subscriber: JobSubscriber, tenant: str, last_event_id: str | None = None) -> bool:
        """Add the subscriber and queue its opening; return False if it already has all events.

        Raises NotFound, Unavailable.
        """
        self._jobs.add(subscriber.job_id, subscriber)
        try:
            await self._jobs.wait_confirmed(subscriber.job_id)
            first = await self._read_opening(subscriber.job_id, tenant, last_event_id)
        except BaseException:
            self.drop(subscriber)
            raise
        if not first:
            self.drop(subscriber)
            return False
        topic = self._jobs.by_key[subscriber.job_id]
        if first[-1].is_news_after(topic.last):
            topic.last = first[-1]
        subscriber.begin(first)
        return True

    async def _read_opening(self, job_id: str, tenant: str, last_event_id: str | None) -> list[StreamEvent]:
        after = int(last_event_id) if last_event_id and NUMBER.fullmatch(last_event_id) else None
        snapshot = await self._read_snapshot(job_id, tenant)
        tail = await self._subscription.read_tail(job_id, snapshot.seq if after is None else after)
        newest = StreamEvent.parse(tail.newest) if tail and tail.newest else None
        if newest and newest.name == "end" and not snapshot.has_ended:
            # It ended between the two reads, or it was queued again since then and that event was lost.
            snapshot = await self._read_snapshot(job_id, tenant)
            tail = tail if snapshot.has_ended else None
        return opening_events(snapshot, tail, after, last_event_id is not None)

    async def _read_snapshot(self, job_id: str, tenant: str) -> JobSnapshot:
        """Read the tenant's job. Raises NotFound, also for a text that is no id."""
        snapshot = await self._snapshots.ask(job_id) if is_uuid(job_id) else None
        if snapshot is None or snapshot.tenant != tenant:
            raise NotFound(f"Job {job_id} not found", code="job_not_found")
        return snapshot

    async def snapshot(self, job_id: str) -> StreamEvent | None:
        """Return the job as it is now, marked `reset`, for a subscriber that lost events; None if it cannot be read."""
        try:
            snapshots = await read(read_snapshots, [job_id])
        except (Unavailable, ConfigError):
            return None
        if not snapshots:
            return None
        snapshot, topic = snapshots[0], self._jobs.get(job_id)
        name = "end" if snapshot.has_ended else "state"
        return snapshot.event(max(snapshot.seq, topic.seq if topic else 0), name, snapshot=True, reset=True)

    def _on_event(self, job_id: str, text: str) -> None:
        if job_id.startswith(CHANNEL):
            self.tenants.on_event(job_id.removeprefix(CHANNEL), text)
            return
        if job_id == NOTICES:
            self.on_notice(text)
            return
        topic = self._jobs.get(job_id)
        event = StreamEvent.parse(text) if topic else None
        if topic and event:
            topic.take(event)

    async def _catch_up(self) -> None:
        """After a reconnection, offer the events that the streams kept, then the ledger's state for the others."""
        topics = [(job_id, topic) for job_id, topic in self._jobs.by_key.items() if topic.last is not None]
        tails = await asyncio.gather(*(self._subscription.read_tail(job_id, topic.seq) for job_id, topic in topics))
        for (_, topic), tail in zip(topics, tails, strict=True):
            events = [event for text in (tail.events if tail else []) if (event := StreamEvent.parse(text))]
            for event in events:
                if event.name != "end" or event is events[-1]:
                    topic.take(event)
        await asyncio.gather(self.tenants.catch_up(), self._compare())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self.turns += 1
            if self._jobs.by_key and (not self.has_redis or self.turns % POLLS_WITH_REDIS == 0):
                await self._compare()

    async def _compare(self) -> None:
        """Read all followed jobs from the ledger; a topic that changed during the read keeps its own state."""
        turns = {job_id: topic.turns for job_id, topic in self._jobs.by_key.items()}
        try:
            snapshots = {snapshot.id: snapshot for snapshot in await read(read_snapshots, list(turns))}
        except (Unavailable, ConfigError) as error:
            log.info("ledger_not_read", reason=error.message)
            return
        for job_id, turn in turns.items():
            topic, snapshot = self._jobs.get(job_id), snapshots.get(job_id)
            if topic is None or topic.turns != turn:
                continue
            if snapshot is None:
                for subscriber in tuple(topic.subscribers):
                    subscriber.hang_up()
            elif topic.last is not None:
                topic.compare(snapshot, blind=not self.has_redis)

    async def _keep_alive(self) -> None:
        """Wake all subscribers with one timer, a few hundred at a time, so that the loop turns in between."""
        while True:
            await asyncio.sleep(self._keep_alive_s)
            everyone: list[Subscriber] = [*self._jobs.subscribers(), *self.tenants.subscribers()]
            for start in range(0, len(everyone), SUBSCRIBERS_PER_TURN):
                for subscriber in everyone[start : start + SUBSCRIBERS_PER_TURN]:
                    subscriber.keep_alive()
                await asyncio.sleep(0)


async def _read_each(job_ids: list[str]) -> list[JobSnapshot | None]:
    """Read the jobs with one query; None for those that do not exist."""
    snapshots = {snapshot.id: snapshot for snapshot in await read(read_snapshots, job_ids)}
    return [snapshots.get(job_id) for job_id in job_ids]
