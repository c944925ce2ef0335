"""Redis side of the subscriptions: one connection a process listens, however many jobs, and one reads streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from redis.asyncio.client import Pipeline, PubSub
from redis.exceptions import RedisError

from app.core import redis
from app.core.logging import get_logger
from app.jobs.events.batcher import Batcher

log = get_logger(__name__)
# A private generator: draws from the shared one would change the sequence of code that seeded it, such as tests.
_random = random.Random()

PREFIX = redis.CHANNEL.format("")
# A subscription must have a channel even without subscribers: this one carries notices that concern no job.
HOME = redis.NOTICES_CHANNEL
NOTICES = HOME.removeprefix(PREFIX)
MAX_BATCH = 500
# A page may have some hundred kilobytes.
MAX_PAGES_PER_BATCH = 20
# After this long without a message Redis is pinged; without an answer in the same time it counts as gone.
MAX_SILENCE_S = 2.0
ANSWER_TIMEOUT_S = 2.0
CONFIRM_TIMEOUT_S = 1.0
CANCEL_AGAIN_S = 0.5
MIN_RECONNECT_S = 0.1
MAX_RECONNECT_S = 1.0


Entries = list[tuple[str, dict[str, str]]]


class StreamTail(NamedTuple):
    """The kept events of a job from a number on, and the newest, as JSON."""

    events: list[str]
    newest: str | None


class StreamPage(NamedTuple):
    """Kept events of a tenant after a position, as (position, JSON), with the first and last position of the stream."""

    events: list[tuple[str, str]]
    first: str | None
    last: str | None


class Subscription:
    """Two connections: one listens, one reads streams.

    on_event(job_id, json) is called for each event of a followed job. on_connect() is called after each (re)connection,
    when events may have been missed.
    """

    def __init__(self, on_event: Callable[[str, str], None], on_connect: Callable[[], Awaitable[None]]) -> None:
        self.connected = False
        self._on_event = on_event
        self._on_connect = on_connect
        self._client = redis.async_client()
        # The future of a channel is set when Redis confirms it, and then replaced by None.
        self._wanted: dict[str, asyncio.Future[None] | None] = {}
        self._changes: dict[str, bool] = {}
        self._changed = asyncio.Event()
        self._tails = Batcher(self._read_tails, name="events-ask", max_batch=MAX_BATCH)
        self._pages = Batcher(self._read_pages, name="events-pages", max_batch=MAX_PAGES_PER_BATCH)
        self._reading = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._listening = asyncio.create_task(self._listen(), name="events-listen")

    async def close(self) -> None:
        tasks = [task for task in (self._listening, self._tails.task, self._pages.task) if task is not None]
        while waiting := [task for task in tasks if not task.done()]:
            for task in waiting:  # repeated: a library may swallow a cancel while it connects
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

    async def wait_confirmed(self, job_id: str) -> None:
        """Return when Redis has confirmed that the job is followed, or cannot soon."""
        waiting = self._wanted.get(job_id)
        if self.connected and waiting is not None:
            await asyncio.wait([waiting], timeout=CONFIRM_TIMEOUT_S)

    async def read_tail(self, job_id: str, after: int) -> StreamTail | None:
        """Return the kept events numbered `after` or higher, and the newest; None while Redis is away."""
        return await self._tails.ask((job_id, after)) if self.connected else None

    async def read_page(self, tenant: str, after: str, count: int) -> StreamPage | None:
        """Return up to `count` of a tenant's events after a position; None while Redis is away."""
        return await self._pages.ask((tenant, after, count)) if self.connected else None

    async def _read_tails(self, questions: list[tuple[str, int]]) -> list[StreamTail | None]:
        def add_commands(pipeline: Pipeline) -> None:
            for job_id, after in questions:
                stream = redis.EVENTS.format(job_id)
                pipeline.xrange(stream, f"{after}-0", "+")
                pipeline.xrevrange(stream, "+", "-", count=1)

        answers = await self._read(add_commands)
        if not answers:
            return [None] * len(questions)
        return [_tail(events, newest) for events, newest in zip(answers[::2], answers[1::2], strict=True)]

    async def _read_pages(self, questions: list[tuple[str, str, int]]) -> list[StreamPage | None]:
        def add_commands(pipeline: Pipeline) -> None:
            for tenant, after, count in questions:
                stream = redis.TENANT_EVENTS.format(tenant)
                pipeline.xrange(stream, f"({after}", "+", count=count)
                pipeline.xrange(stream, "-", "+", count=1)
                pipeline.xrevrange(stream, "+", "-", count=1)

        answers = await self._read(add_commands)
        if not answers:
            return [None] * len(questions)
        return [_page(*answers[start : start + 3]) for start in range(0, len(answers), 3)]

    async def _read(self, add_commands: Callable[[Pipeline], None]) -> list[Any]:
        """Return the answers of one pipeline, [] while Redis is away; one connection serves all reads."""
        try:
            async with (
                self._reading,
                asyncio.timeout(ANSWER_TIMEOUT_S),
                self._client.pipeline(transaction=False) as pipeline,
            ):
                add_commands(pipeline)
                return list(await pipeline.execute())
        except (RedisError, OSError, TimeoutError) as error:
            log.info("streams_not_read", reason=str(error))
            return []

    async def _listen(self) -> None:
        """Connect and follow, and reconnect when that ends, until the task is cancelled."""
        delay = MIN_RECONNECT_S
        while True:
            try:
                await self._follow()
            except* (RedisError, OSError, TimeoutError) as group:
                if self.connected:
                    delay = MIN_RECONNECT_S
                if delay == MIN_RECONNECT_S:  # logged once an outage
                    log.warning("events_without_redis", reason=str(group.exceptions[0]))
            finally:
                self.connected = False
            self._forget_confirmations()
            await asyncio.sleep(delay * _random.uniform(0.5, 1.0))
            delay = min(MAX_RECONNECT_S, delay * 2)

    def _forget_confirmations(self) -> None:
        for job_id, waiting in self._wanted.items():
            if waiting is None or waiting.done():
                self._wanted[job_id] = asyncio.get_running_loop().create_future()

    async def _follow(self) -> None:
        # Idle connections belong to the Redis before the outage.
        await self._client.connection_pool.disconnect(inuse_connections=False)
        async with self._client.pubsub() as pubsub, asyncio.TaskGroup() as tasks:
            await asyncio.wait_for(pubsub.subscribe(HOME), ANSWER_TIMEOUT_S)
            self._changes = dict.fromkeys(self._wanted, True)
            self._changed.set()
            self.connected = True
            log.info("events_connected", jobs=len(self._wanted))
            tasks.create_task(self._follow_changes(pubsub))
            tasks.create_task(self._receive(pubsub))
            tasks.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        await self._on_connect()

    async def _follow_changes(self, pubsub: PubSub) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self._changes = self._changes, {}
            for wanted, send in ((True, pubsub.subscribe), (False, pubsub.unsubscribe)):
                channels = [PREFIX + job_id for job_id, change in changes.items() if change is wanted]
                for start in range(0, len(channels), MAX_BATCH):
                    await send(*channels[start : start + MAX_BATCH])

    async def _receive(self, pubsub: PubSub) -> None:
        silent = False
        while True:
            message = await pubsub.get_message(timeout=MAX_SILENCE_S)
            if message is None:
                if silent:
                    raise TimeoutError("Redis does not answer a ping")
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


def _page(events: Entries, first: Entries, last: Entries) -> StreamPage:
    texts = [(position, fields.get("e", "")) for position, fields in events]
    return StreamPage(texts, first[0][0] if first else None, last[0][0] if last else None)


def _tail(events: Entries, newest: Entries) -> StreamTail:
    return StreamTail([fields["e"] for _, fields in events], newest[0][1]["e"] if newest else None)
