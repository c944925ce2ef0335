"""Events of jobs: numbered, kept for a while and published by Redis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from app.core import clock, redis
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.lua import LUA
from app.jobs.states import ENDED, PROGRESS_FIELDS, attempt_number
from app.jobs.transition import Moved

EventName = Literal["progress", "state", "end"]

log = get_logger(__name__)


class JobEvent(NamedTuple):
    """An event to publish. `seed` is the number of the job's last event in the ledger; Redis may know a later one."""

    job_id: str
    tenant: str
    event: EventName
    state: str
    attempt: int
    progress: Mapping[str, Any] = MappingProxyType({})
    seed: int = 0
    reason: str | None = None


def event_of_move(move: Moved, reason: str | None = None) -> JobEvent:
    """Return the event of a job that changed its state; `reason` is the cause, for example `interrupted`."""
    progress = move.progress or {}
    return JobEvent(
        job_id=move.id,
        tenant=move.tenant,
        event="end" if move.state in ENDED else "state",
        state=move.state,
        attempt=attempt_number(move.state, move.tries, move.max_tries),
        progress=progress,
        seed=int(progress.get("seq", 0)),
        reason=reason,
    )


def publish(events: Sequence[JobEvent]) -> list[int]:
    """Publish the events and return the numbers they got.

    Raises Unavailable. No event was published then; subscribers read the change from the ledger.
    """
    if not events:
        return []
    args: list[Any] = [redis.SEQUENCE, redis.EVENTS, redis.CHANNEL, redis.TENANT_EVENTS]
    for event in events:
        args += [event.job_id, event.tenant, event.seed, event.event, _body(event)]
    return [int(number) for number in redis.push().script(LUA / "publish.lua", args)]


def announce(moves: Iterable[Moved], reason: str | None = None) -> None:
    """Publish committed moves. Without Redis nothing is published, and subscribers read the ledger."""
    try:
        publish([event_of_move(move, reason) for move in moves])
    except (Unavailable, ConfigError) as error:
        log.info("events_not_published", reason=error.message)


def _body(event: JobEvent) -> str:
    body: dict[str, Any] = {
        "event": event.event,
        "job_id": event.job_id,
        "attempt": event.attempt,
        "state": event.state,
    }
    body |= {name: event.progress.get(name) for name in PROGRESS_FIELDS}
    if event.reason is not None:
        body["reason"] = event.reason
    body["at"] = clock.moment(clock.now())
    return json.dumps(body)
