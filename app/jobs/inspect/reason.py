"""The reason for a job's state: a stable code, a sentence and a fix."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.core import redis
from app.core.errors import ConfigError, Unavailable
from app.jobs.ledger.write_probe import write_fault

# A relay writes the windows each second, to a key that expires after a minute.
WINDOW_TTL_S = 60
MAX_RELAY_SILENCE_S = 10


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` is for programs, `fix` tells a person what to do, `since` is the time of the change, if known."""

    code: str
    message: str
    fix: str
    since: datetime | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Services:
    """State of the services; a fault is None while the service works.

    redis_fault, sql_fault: why no key or no row can be written. relay: a relay wrote the windows in the last seconds.
    """

    redis_fault: str | None = None
    sql_fault: str | None = None
    relay: bool = True


def check_services() -> Services:
    """Write to Redis and SQL, and look for a relay; never raises. Do not call it inside a transaction."""
    sql_fault = write_fault()
    redis_fault = redis.push().refusal()
    if redis_fault is not None:
        return Services(redis_fault, sql_fault)
    try:
        ttl_s = int(redis.push().call(lambda client: client.ttl(redis.WINDOW)))
    except (Unavailable, ConfigError) as error:
        return Services(error.message, sql_fault)
    return Services(sql_fault=sql_fault, relay=ttl_s > WINDOW_TTL_S - MAX_RELAY_SILENCE_S)


def span(seconds: float) -> str:
    """Format a duration for a sentence: `42 s`, `5 min`, `3 h`, `2 days`."""
    for unit, size, maximum in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < size * maximum:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
