"""The only source of time: UTC for timestamps, a monotonic clock for durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_offset = timedelta(0)


def now() -> datetime:
    return datetime.now(UTC) + _offset


def moment(value: datetime | None) -> str | None:
    """Return a UTC time as RFC 3339 text, None for None."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def parse_moment(text: str) -> datetime:
    """Return the time that `moment` wrote."""
    return datetime.fromisoformat(text)


def monotonic() -> float:
    """Return seconds that never jump when the wall clock is changed."""
    return time.monotonic()


def shift(offset: timedelta) -> None:
    """Move the wall clock of this process; monotonic() is unaffected. Zero resets it."""
    global _offset
    _offset = offset


def shifted() -> timedelta:
    """Return the offset of this process's wall clock."""
    return _offset
