"""The Redis side of following jobs: one subscription a process, however many jobs, and what their streams keep."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from app.core import redis
from app.core.logging import get_logger

log = get_logger(__name__)
# Of its own: whoever seeds the one that all share, as tests do, would have it moved on by us.
_dice = random.Random()

PREFIX = redis.CHANNEL.format("")
# A subscription must have a channel, also while nobody follows anything: this one carries what concerns no job.
HOME = redis.NOTICES_CHANNEL
NOTICES = HOME.removeprefix(PREFIX)
BATCH = 500
# Each may be some hundred kilobytes.
PAGES_AT_ONCE = 20
# Redis that says nothing for so long is asked for a sign of life; twice in vain, and it counts as gone.
SILENCE_S = 2.0
ANSWER_S = 2.0
CONFIRM_S = 1.0
CANCEL_AGAIN_S = 0.5
RECONNECT_S = (0.1, 1.0)


Entries = list[tuple[str, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Tail:
    """What Redis keeps of a job's events: those from a number on, and the newest, as their JSON."""

    events: list[str]
    newest: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What Redis keeps of a tenant's events after a place: (place, JSON); with the places of all its first and last."""

    events: list[tuple[str, str]]
    first: str | None
    last: str | None


class Subscription:
    """Two connections: one listens, one reads streams.

    on_event(job_id, json) is called for each event of a wanted job; on_connect() after each (re)connection, when events
    may have been missed.
    """

    def __init__(self, on_event: Callable[[str, str], None], on_connect: Callable[[], Awaitable[None]]) -> None:
        self.connected = False
        self._on_event = on_event
        self._on_connect = on_connect
        self._client = redis.async_client()
        self._wanted: dict[str, asyncio.Future[None] | None] = {}
        self._changes: dict[str, bool] = {}
        self._changed = asyncio.Event()
        self._questions: list[tuple[str, int, asyncio.Future[Tail | None]]] = []
        self._asking: asyncio.Task[None] | None = None
        self._pages: list[tuple[str, str, int, asyncio.Future[Kept | None]]] = []
        self._turning: asyncio.Task[None] | None = None
        self._one_by_one = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._listening = asyncio.create_task(self._listen(), name="events-listen")

    async def close(self) -> None:
        tasks = [task for task in (self._listening, self._asking, self._turning) if task is not None]
        while waiting := [task for task in tasks if not task.done()]:
            for task in waiting:  # again: a library may swallow a cancel in the middle of its connecting
                task.cancel()
            await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)
        self.connected = False
        await self._client.aclose()

    def want(self, job_id: str) -> None:
        """Follow this job from now on."""
        if job_id not in self._wanted:
            self._wanted[job_id] = asyncio.get_running_loop().create_future()
            self._change(job_id, True)

    def unwant(self, job_id: str) -> None:
        waiting = self._wanted.pop(job_id, None)
        if waiting is not None and not waiting.done():
            waiting.cancel()
        self._change(job_id, False)

    def _change(self, job_id: str, wanted: bool) -> None:
        self._changes[job_id] = wanted
        self._changed.set()

    async def confirmed(self, job_id: str) -> None:
        """Returns when Redis has confirmed that the job is followed, or cannot soon."""
        waiting = self._wanted.get(job_id)
        if self.connected and waiting is not None:
            await asyncio.wait([waiting], timeout=CONFIRM_S)

    async def tail(self, job_id: str, after: int) -> Tail | None:
        """The kept events numbered `after` or higher, and the newest; None while Redis is away."""
        if not self.connected:
            return None
        future: asyncio.Future[Tail | None] = asyncio.get_running_loop().create_future()
        self._questions.append((job_id, after, future))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="events-ask")
        return await future

    async def kept(self, tenant: str, after: str, count: int) -> Kept | None:
        """Up to `count` of a tenant's events after a place; None while Redis is away."""
        if not self.connected:
            return None
        future: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        self._pages.append((tenant, after, count, future))
        if self._turning is None or self._turning.done():
            self._turning = asyncio.create_task(self._turn_pages(), name="events-pages")
        return await future

    async def _turn_pages(self) -> None:
        """Answer all who wait, PAGES_AT_ONCE in one round trip."""
        while self._pages:
            batch, self._pages = self._pages[:PAGES_AT_ONCE], self._pages[PAGES_AT_ONCE:]
            answers: list[Any] = []
            try:
                async with (
                    self._one_by_one,
                    asyncio.timeout(ANSWER_S),
                    self._client.pipeline(transaction=False) as pipeline,
                ):
                    for tenant, after, count, _ in batch:
                        stream = redis.TENANT_EVENTS.format(tenant)
                        pipeline.xrange(stream, f"({after}", "+", count=count)
                        pipeline.xrange(stream, "-", "+", count=1)
                        pipeline.xrevrange(stream, "+", "-", count=1)
                    answers = await pipeline.execute()
            except (RedisError, OSError, TimeoutError) as error:
                log.info("streams_not_read", reason=str(error))
            for place, (*_, future) in enumerate(batch):
                if not future.done():
                    future.set_result(_kept(*answers[3 * place : 3 * place + 3]) if answers else None)

    async def _ask(self) -> None:
        """Answer all who wait in one round trip for each BATCH; thousands may come back at once."""
        while self._questions:
            batch, self._questions = self._questions[:BATCH], self._questions[BATCH:]
            answers: list[Any] = []
            try:
                async with (
                    self._one_by_one,  # one connection for all that is read
                    asyncio.timeout(ANSWER_S),
                    self._client.pipeline(transaction=False) as pipeline,
                ):
                    for job_id, after, _ in batch:
                        stream = redis.EVENTS.format(job_id)
                        pipeline.xrange(stream, f"{after}-0", "+")
                        pipeline.xrevrange(stream, "+", "-", count=1)
                    answers = await pipeline.execute()
            except (RedisError, OSError, TimeoutError) as error:
                log.info("streams_not_read", reason=str(error))
            for place, (_, _, future) in enumerate(batch):
                if not future.done():
                    future.set_result(_tail(answers[2 * place], answers[2 * place + 1]) if answers else None)

    async def _listen(self) -> None:
        """Connect, follow, and when that ends, begin anew: for as long as the process lives."""
        least, most = RECONNECT_S
        delay = least
        while True:
            try:
                await self._follow()
            except* (RedisError, OSError, TimeoutError) as group:
                if self.connected:
                    delay = least
                if delay == least:  # said once an outage
                    log.warning("events_without_redis", reason=str(group.exceptions[0]))
            finally:
                self.connected = False
            self._forget_confirmations()
            await asyncio.sleep(delay * _dice.uniform(0.5, 1.0))
            delay = min(most, delay * 2)

    def _forget_confirmations(self) -> None:
        for job_id, waiting in self._wanted.items():
            if waiting is None or waiting.done():
                self._wanted[job_id] = asyncio.get_running_loop().create_future()

    async def _follow(self) -> None:
        # What lies idle belongs to the Redis that was.
        await self._client.connection_pool.disconnect(inuse_connections=False)
        async with self._client.pubsub() as pubsub, asyncio.TaskGroup() as tasks:
            await asyncio.wait_for(pubsub.subscribe(HOME), ANSWER_S)
            self._changes = dict.fromkeys(self._wanted, True)
            self._changed.set()
            self.connected = True
            log.info("events_connected", jobs=len(self._wanted))
            tasks.create_task(self._follow_wishes(pubsub))
            tasks.create_task(self._read(pubsub))
            tasks.create_task(self._announce())

    async def _announce(self) -> None:
        await self._on_connect()

    async def _follow_wishes(self, pubsub: PubSub) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self._changes = self._changes, {}
            for wanted, change in ((True, pubsub.subscribe), (False, pubsub.unsubscribe)):
                channels = [PREFIX + job_id for job_id, wish in changes.items() if wish is wanted]
                for start in range(0, len(channels), BATCH):
                    await change(*channels[start : start + BATCH])

    async def _read(self, pubsub: PubSub) -> None:
        silent = False
        while True:
            message = await pubsub.get_message(timeout=SILENCE_S)
            if message is None:
                if silent:
                    raise TimeoutError("Redis has gone silent")
                silent = True
                await pubsub.ping()
                continue
            silent = False
            if message["type"] == "message":
                self._on_event(message["channel"].removeprefix(PREFIX), message["data"])
            elif message["type"] == "subscribe":
                self._confirm(message["channel"].removeprefix(PREFIX))

    def _confirm(self, job_id: str) -> None:
        waiting = self._wanted.get(job_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        if job_id in self._wanted:
            self._wanted[job_id] = None


def _kept(events: Entries, first: Entries, last: Entries) -> Kept:
    texts = [(place, fields.get("e", "")) for place, fields in events]
    return Kept(texts, first[0][0] if first else None, last[0][0] if last else None)


def _tail(kept: Entries, newest: Entries) -> Tail:
    return Tail([fields["e"] for _, fields in kept], newest[0][1]["e"] if newest else None)
