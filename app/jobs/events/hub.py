"""A job's events for whoever follows it: a snapshot from the ledger, what Redis kept, then each event as it comes.

One hub a process. State comes from the ledger: it is asked for all followed jobs every few seconds (each second while
Redis is away), so that a lost message delays an end and never hides it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from app.core.db import read
from app.core.errors import ConfigError, NotFound, Unavailable
from app.core.ids import is_uuid
from app.core.logging import get_logger
from app.core.metrics import STREAMS
from app.jobs.events.snapshot import Event, Standing, opening, standings
from app.jobs.events.subscribers import Follower, Watcher
from app.jobs.events.subscription import NOTICES, Subscription
from app.jobs.events.tenant_events import CHANNEL, TenantStreams

log = get_logger(__name__)

POLL_S = 1.0
# With Redis present the ledger is asked at every fifth turn.
POLLS_WITH_REDIS = 5
KEEP_ALIVE_S = 15.0
NUMBER = re.compile(r"[0-9]{1,15}")


class Topic:
    """A job that is followed here."""

    __slots__ = ("last", "polled", "turns", "watchers")

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self.last: Event | None = None
        self.polled: Standing | None = None
        self.turns = 0

    def take(self, event: Event) -> None:
        last = self.last
        # A state that progress has told already would only take the bar's numbers away.
        if event.is_news_after(last) and not (last and event.name == "state" and event.repeats(last)):
            self.last = event
            self.turns += 1
            for watcher in tuple(self.watchers):
                watcher.offer(event)

    def compare(self, standing: Standing, *, blind: bool) -> None:
        """Tell what the ledger knows and nobody told; `blind` while Redis is away and rows are all there is."""
        before, self.polled = self.polled, standing
        last = self.last
        seq = max(standing.seq, last.seq if last else 0)
        if standing.has_ended:
            if last is None or (last.name, last.state) != ("end", standing.state):
                self.take(standing.event(seq + 1, "end"))
        elif last is None or (standing.state, standing.attempt) != (last.state, last.attempt):
            self.take(standing.event(seq + 1 if last and seq == last.seq else seq))
        elif standing.seq > last.seq or (blind and before is not None and _moved_on(before, standing)):
            self.take(standing.event(max(standing.seq, last.seq + 1), "progress"))


def _moved_on(before: Standing, now: Standing) -> bool:
    was, is_ = before.progress or {}, now.progress or {}
    return was != is_ and (is_.get("percent") or 0) >= (was.get("percent") or 0)


class Hub:
    """All followers of this process. Lives on one loop; `start()` and `close()` are called there."""

    def __init__(self, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._keep_alive_s = keep_alive_s
        self._topics: dict[str, Topic] = {}
        self._subscription = Subscription(self._on_event, self._catch_up)
        self.tenants = TenantStreams(self._subscription, self._counted)
        # Called with what other processes tell this one beside events: app/core/redis.py lists the words.
        self.on_notice: Callable[[str], None] = log.debug
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._questions: list[tuple[str, asyncio.Future[Standing | None]]] = []
        self._asking: asyncio.Task[None] | None = None
        self._count = 0
        self.turns = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def has_redis(self) -> bool:
        return self._subscription.connected

    @property
    def watchers(self) -> int:
        return self._count

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._subscription.start()
        self._tasks = [
            asyncio.create_task(self._poll(), name="events-poll"),
            asyncio.create_task(self._keep_alive(), name="events-keep-alive"),
        ]

    def hang_up(self) -> None:
        """End every stream and every waiting; new ones are refused."""
        self._closing = True
        for topic in list(self._topics.values()):
            for watcher in tuple(topic.watchers):
                watcher.hang_up()
        self.tenants.hang_up()

    def hang_up_soon(self) -> None:
        """The same from another thread or a signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.hang_up)

    async def close(self) -> None:
        self.hang_up()
        tasks = [*self._tasks, *([self._asking] if self._asking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.tenants.close()
        await self._subscription.close()

    def add(self, watcher: Watcher) -> None:
        """Collect the job's events for this watcher from now on."""
        if self._closing:
            raise Unavailable("this process is stopping", code="stopping", retry_after_s=1)
        topic = self._topics.get(watcher.job_id)
        if topic is None:
            topic = self._topics[watcher.job_id] = Topic()
            self._subscription.want(watcher.job_id)
        topic.watchers.add(watcher)
        self._counted(1)

    def drop(self, watcher: Watcher) -> None:
        topic = self._topics.get(watcher.job_id)
        if topic is None or watcher not in topic.watchers:
            return
        topic.watchers.remove(watcher)
        self._counted(-1)
        if not topic.watchers:
            del self._topics[watcher.job_id]
            self._subscription.unwant(watcher.job_id)

    def _counted(self, more: int) -> None:
        self._count += more
        STREAMS.set(self._count)

    async def open(self, watcher: Watcher, tenant: str, last_event_id: str | None = None) -> bool:
        """Add the watcher and give it its opening; False where it has heard all. Raises NotFound, Unavailable."""
        self.add(watcher)
        try:
            await self._subscription.confirmed(watcher.job_id)
            first = await self._opening(watcher.job_id, tenant, last_event_id)
        except BaseException:
            self.drop(watcher)
            raise
        if not first:
            self.drop(watcher)
            return False
        topic = self._topics[watcher.job_id]
        if first[-1].is_news_after(topic.last):
            topic.last = first[-1]
        watcher.begin(first)
        return True

    async def _opening(self, job_id: str, tenant: str, last_event_id: str | None) -> list[Event]:
        after = int(last_event_id) if last_event_id and NUMBER.fullmatch(last_event_id) else None
        standing = await self.standing(job_id, tenant)
        tail = await self._subscription.tail(job_id, standing.seq if after is None else after)
        newest = Event.parse(tail.newest) if tail and tail.newest else None
        if newest and newest.name == "end" and not standing.has_ended:
            # It ended in between; or it was queued again since, and nobody heard.
            standing = await self.standing(job_id, tenant)
            tail = tail if standing.has_ended else None
        return opening(standing, tail, after, last_event_id is not None)

    async def standing(self, job_id: str, tenant: str) -> Standing:
        """Where the tenant's job is. Raises NotFound, also for what is no id."""
        found = None
        if is_uuid(job_id):
            future: asyncio.Future[Standing | None] = asyncio.get_running_loop().create_future()
            self._questions.append((job_id, future))
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="events-standings")
            found = await future
        if found is None or found.tenant != tenant:
            raise NotFound(f"Job {job_id} not found", code="job_not_found")
        return found

    async def _ask(self) -> None:
        """One query for all who ask meanwhile: thousands come back at once after a restart."""
        while self._questions:
            questions, self._questions = self._questions, []
            try:
                here = {found.id: found for found in await read(standings, [job_id for job_id, _ in questions])}
            except (Unavailable, ConfigError, SQLAlchemyError) as error:
                for _, future in questions:
                    if not future.done():
                        future.set_exception(error)
                continue
            for job_id, future in questions:
                if not future.done():
                    future.set_result(here.get(job_id))

    async def snapshot(self, job_id: str) -> Event | None:
        """The job as it is now, marked `reset`, for a watcher that lost events; None when it cannot be said."""
        try:
            found = await read(standings, [job_id])
        except (Unavailable, ConfigError):
            return None
        topic = self._topics.get(job_id)
        last = topic.last.seq if topic and topic.last else 0
        name = "end" if found and found[0].has_ended else "state"
        return found[0].event(max(found[0].seq, last), name, snapshot=True, reset=True) if found else None

    def _on_event(self, job_id: str, text: str) -> None:
        if job_id.startswith(CHANNEL):
            self.tenants.on_event(job_id.removeprefix(CHANNEL), text)
            return
        if job_id == NOTICES:
            self.on_notice(text)
            return
        topic = self._topics.get(job_id)
        event = Event.parse(text) if topic else None
        if topic and event:
            topic.take(event)

    async def _catch_up(self) -> None:
        """After a reconnection: what the streams kept meanwhile, then the ledger for what they did not."""
        topics = [(job_id, topic) for job_id, topic in self._topics.items() if topic.last is not None]
        tails = await asyncio.gather(*(self._subscription.tail(job_id, _seq(topic)) for job_id, topic in topics))
        for (_, topic), tail in zip(topics, tails, strict=True):
            kept = [event for text in (tail.events if tail else []) if (event := Event.parse(text))]
            for event in kept:
                if event.name != "end" or event is kept[-1]:
                    topic.take(event)
        await asyncio.gather(self.tenants.reconnected(), self._compare())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self.turns += 1
            if self._topics and (not self.has_redis or self.turns % POLLS_WITH_REDIS == 0):
                await self._compare()

    async def _compare(self) -> None:
        """One look at the ledger for all followed jobs; a topic that moved while it was read keeps its own word."""
        turns = {job_id: topic.turns for job_id, topic in self._topics.items()}
        try:
            found = await read(standings, list(turns))
        except (Unavailable, ConfigError) as error:
            log.info("ledger_not_read", reason=error.message)
            return
        here = {standing.id: standing for standing in found}
        for job_id, turn in turns.items():
            topic, standing = self._topics.get(job_id), here.get(job_id)
            if topic is None or topic.turns != turn:
                continue
            if standing is None:
                for watcher in tuple(topic.watchers):
                    watcher.hang_up()
            elif topic.last is not None:
                topic.compare(standing, blind=not self.has_redis)

    async def _keep_alive(self) -> None:
        """One timer for all, a few hundred at a time, so that the loop turns in between."""
        while True:
            await asyncio.sleep(self._keep_alive_s)
            everyone: list[Follower] = [watcher for topic in self._topics.values() for watcher in topic.watchers]
            everyone += self.tenants.watchers()
            for start in range(0, len(everyone), 200):
                for watcher in everyone[start : start + 200]:
                    watcher.keep_alive()
                await asyncio.sleep(0)


def _seq(topic: Topic) -> int:
    return topic.last.seq if topic.last else 0
