"""Ids of admitted jobs → Redis, after the commit that made them true."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session

from app.core import clock, redis
from app.core.db import after_commit
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.states import CRASHES_BEFORE_ALONE

LUA = Path(__file__).parent / "lua"
# An admission on a belief older than this asks Redis first, by pushing.
BELIEF_S = 0.25
# The window of a queue no relay has spoken of yet.
DEFAULT_WINDOW = 64
BATCH = 500

log = get_logger(__name__)


class Admitted(Protocol):
    """What a push needs of a job."""

    @property
    def id(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def crashes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Ticket:
    """An admitted job, as a relay reads it."""

    id: str
    fence: int
    kind: str
    queue: str
    crashes: int


@dataclass(slots=True)
class _Belief:
    length: int
    window: int
    at: float


class Window:
    """What this process believes of how full the windows are; the pushes themselves tell it."""

    def __init__(self) -> None:
        self._beliefs: dict[str, _Belief] = {}
        self._lock = threading.Lock()

    def take(self, queue: str, count: int) -> int:
        """How many of `count` jobs may be admitted now."""
        if redis.push().is_open:
            return 0
        with self._lock:
            belief = self._beliefs.get(queue)
            if belief is None or clock.monotonic() - belief.at > BELIEF_S:
                belief = self._beliefs[queue] = _Belief(0, DEFAULT_WINDOW, clock.monotonic())
            room = max(0, min(count, belief.window - belief.length))
            belief.length += room
            return room

    def forget(self) -> None:
        """Believe nothing any more: another Redis stands behind the settings."""
        with self._lock:
            self._beliefs.clear()

    def learn(self, queue: str, length: int, window: int) -> None:
        with self._lock:
            self._beliefs[queue] = _Belief(length, window or DEFAULT_WINDOW, clock.monotonic())


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


def push(jobs: Iterable[Admitted], *, first: bool = False) -> None:
    """Push ids and wake workers. Raises Unavailable; then the relay does it later."""
    rows = list(jobs)
    for start in range(0, len(rows), BATCH):
        args: list[Any] = [redis.NAMESPACE, redis.WAKE, redis.WINDOW]
        for job in rows[start : start + BATCH]:
            args += [job.queue, redis_id(job.id, job.fence), envelope(job), "1" if first else "0"]
        answer = redis.push().script(LUA / "push.lua", args)
        for place in range(0, len(answer), 3):
            window.learn(answer[place], int(answer[place + 1]), int(answer[place + 2]))


def push_after_commit(session: Session, jobs: Sequence[Admitted]) -> None:
    """Push these once the session's transaction is true; what cannot be pushed waits for the relay."""
    waiting: _Outbox = after_commit(session, "dispatch", _Outbox)
    waiting.jobs.extend(jobs)


class _Outbox:
    def __init__(self) -> None:
        self.jobs: list[Admitted] = []

    def __call__(self) -> None:
        try:
            push(self.jobs)
        except (Unavailable, ConfigError) as error:
            log.warning("push_failed", jobs=len(self.jobs), reason=error.message)


def wake_relay() -> None:
    """Tell a relay that there is something to feed; without Redis it looks by itself."""

    def wake(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.lpush(redis.WAKE_RELAY, "1").ltrim(redis.WAKE_RELAY, 0, 7).expire(redis.WAKE_RELAY, 60).execute()

    try:
        redis.push().call(wake)
    except (Unavailable, ConfigError):
        return


def wake_relay_after_commit(session: Session) -> None:
    after_commit(session, "wake_relay", lambda: wake_relay)
