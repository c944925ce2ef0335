"""A reason: why a job is where it is, as a stable word, a sentence and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.core import redis
from app.core.errors import ConfigError, Unavailable

# A relay tells of the windows each second, in a key that lives for a minute.
WINDOW_LIVES_S = 60
RELAY_SILENT_S = 10


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` is for programs, `fix` what a person can do; `since` when it became so, where that is known."""

    code: str
    message: str
    fix: str
    since: datetime | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Around:
    """What SQL cannot say: whether Redis answers, and whether a relay has spoken in the last seconds."""

    redis: bool = True
    relay: bool = True


def look_around() -> Around:
    """Asks Redis; never raises. Not to be called inside a transaction."""
    try:
        lives_s = int(redis.push().call(lambda client: client.ttl(redis.WINDOW)))
    except (Unavailable, ConfigError):
        return Around(redis=False)
    return Around(relay=lives_s > WINDOW_LIVES_S - RELAY_SILENT_S)


def span(seconds: float) -> str:
    """A length of time for a sentence: `42 s`, `5 min`, `3 h`, `2 days`."""
    for unit, size, largest in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < size * largest:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
