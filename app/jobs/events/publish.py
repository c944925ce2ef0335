"""What happens to a job, told to whoever follows it: numbered in Redis, kept for a while, and published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from app.core import clock, redis
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.admission.push import LUA
from app.jobs.states import ENDED
from app.jobs.transition import Moved

EventName = Literal["progress", "state", "end"]
FIELDS = ("percent", "stage", "done", "total", "unit", "message")

log = get_logger(__name__)


class Event(NamedTuple):
    """`seed` is the number of the job's last event as the ledger knows it; Redis may know a later one."""

    job_id: str
    tenant: str
    event: EventName
    state: str
    attempt: int
    progress: Mapping[str, Any] = MappingProxyType({})
    seed: int = 0
    reason: str | None = None


def of_move(move: Moved, reason: str | None = None) -> Event:
    """The event of a job that went to another state; `reason` says why, for example `interrupted`."""
    progress = move.progress or {}
    return Event(
        job_id=move.id,
        tenant=move.tenant,
        event="end" if move.state in ENDED else "state",
        state=move.state,
        attempt=attempt_number(move.state, move.tries, move.max_tries),
        progress=progress,
        seed=int(progress.get("seq", 0)),
        reason=reason,
    )


def attempt_number(state: str, tries: int, max_tries: int) -> int:
    """Which try is meant, from 1: the next or present one, or for a failed job its last."""
    return max(1, min(tries if state == "failed" else tries + 1, max_tries))


def publish(events: Sequence[Event]) -> list[int]:
    """The numbers the events got. Raises Unavailable: nobody heard of them then, and the ledger is asked instead."""
    if not events:
        return []
    args: list[Any] = [redis.SEQUENCE, redis.EVENTS, redis.CHANNEL, redis.TENANT_EVENTS]
    for event in events:
        args += [event.job_id, event.tenant, event.seed, event.event, _body(event)]
    return [int(number) for number in redis.push().script(LUA / "publish.lua", args)]


def announce(moves: Iterable[Moved], reason: str | None = None) -> None:
    """Tell of moves that are committed; without Redis nobody hears, and who follows asks the ledger."""
    try:
        publish([of_move(move, reason) for move in moves])
    except (Unavailable, ConfigError) as error:
        log.info("events_not_published", reason=error.message)


def _body(event: Event) -> str:
    body: dict[str, Any] = {
        "event": event.event,
        "job_id": event.job_id,
        "attempt": event.attempt,
        "state": event.state,
    }
    body |= {name: event.progress.get(name) for name in FIELDS}
    if event.reason is not None:
        body["reason"] = event.reason
    body["at"] = clock.moment(clock.now())
    return json.dumps(body)
