"""Ids of admitted jobs → Redis, after the commit that made them true."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from sqlalchemy.orm import Session

from app.core import clock, redis
from app.core.db import after_commit
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.lua import LUA
from app.jobs.states import CRASHES_BEFORE_ALONE

# An admission on a cached older than this asks Redis first, by pushing.
MAX_CACHE_AGE_S = 0.25
# The window of a queue no relay has spoken of yet.
DEFAULT_WINDOW = 64
BATCH = 500

Place = Literal["last", "head", "early", "move"]

log = get_logger(__name__)


class Admitted(Protocol):
    """The fields of a job that a push needs."""

    @property
    def id(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def crashes(self) -> int: ...


class QueuedRef(NamedTuple):
    """An admitted job as a relay reads it; a `promoted` one is served before the rest of its queue."""

    id: str
    fence: int
    kind: str
    queue: str
    crashes: int
    tenant: str = ""
    promoted: bool = False


@dataclass(slots=True)
class _CachedLength:
    length: int
    window: int
    at: float


class Window:
    """Cached lengths of the windows of this process; each push returns them."""

    def __init__(self) -> None:
        self._cached: dict[str, _CachedLength] = {}
        self._lock = threading.Lock()

    def take(self, queue: str, count: int) -> int:
        """Reserve room for up to `count` jobs; return for how many there is room."""
        if redis.push().is_open:
            return 0
        with self._lock:
            cached = self._cached.get(queue)
            if cached is None or clock.monotonic() - cached.at > MAX_CACHE_AGE_S:
                cached = self._cached[queue] = _CachedLength(0, DEFAULT_WINDOW, clock.monotonic())
            room = max(0, min(count, cached.window - cached.length))
            cached.length += room
            return room

    def length(self, queue: str) -> int:
        """Return how many ids lie in the queue's window; 0 if the cached length is too old."""
        cached = self._cached.get(queue)
        return 0 if cached is None or clock.monotonic() - cached.at > MAX_CACHE_AGE_S else cached.length

    def clear(self) -> None:
        """Drop the cached lengths: the settings name another Redis."""
        with self._lock:
            self._cached.clear()

    def update(self, queue: str, length: int, window: int) -> None:
        with self._lock:
            self._cached[queue] = _CachedLength(length, window or DEFAULT_WINDOW, clock.monotonic())


window = Window()


def redis_id(job_id: str, fence: int) -> str:
    return f"{job_id}:{fence}"


def envelope(job: Admitted) -> str:
    """Dramatiq's stock message whose one argument is the job's id."""
    message: dict[str, Any] = {
        "queue_name": job.queue,
        "actor_name": job.kind,
        "args": [job.id],
        "kwargs": {},
        "options": {"redis_message_id": redis_id(job.id, job.fence)},
        "message_id": job.id,
        "message_timestamp": int(clock.now().timestamp() * 1000),
    }
    if job.crashes >= CRASHES_BEFORE_ALONE:
        message["options"]["alone"] = True
    return json.dumps(message)


def push(jobs: Iterable[Admitted], *, place: Place = "last") -> None:
    """Push ids and wake workers. Raises Unavailable; the relay then pushes them later.

    Places: `head` of the queue; `early`, served before the rest in its own order; `move`, as `early` if no worker has
    it yet.
    """
    rows = list(jobs)
    for start in range(0, len(rows), BATCH):
        args: list[Any] = [redis.NAMESPACE, redis.WAKE, redis.WINDOW]
        for job in rows[start : start + BATCH]:
            args += [job.queue, redis_id(job.id, job.fence), envelope(job), place]
        answer = redis.push().script(LUA / "push.lua", args)
        for at in range(0, len(answer), 3):
            window.update(answer[at], int(answer[at + 1]), int(answer[at + 2]))


def wake_relay() -> None:
    """Wake a relay because there are jobs to admit. Without Redis the relay polls."""

    def wake(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.lpush(redis.WAKE_RELAY, "1").ltrim(redis.WAKE_RELAY, 0, 7).expire(redis.WAKE_RELAY, 60).execute()

    try:
        redis.push().call(wake)
    except (Unavailable, ConfigError):
        return


def wake_relay_after_commit(session: Session) -> None:
    after_commit(session, "wake_relay", lambda: wake_relay)
