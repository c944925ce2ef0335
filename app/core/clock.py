"""The only source of time: UTC for what is written down, a monotonic count for what is measured."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_offset = timedelta(0)


def now() -> datetime:
    return datetime.now(UTC) + _offset


def moment(value: datetime | None) -> str | None:
    """Return a UTC time as RFC 3339 text, None for None."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def monotonic() -> float:
    """Seconds that never jump, whatever happens to the wall clock."""
    return time.monotonic()


def shift(offset: timedelta) -> None:
    """Move the wall clock of this process; monotonic() is untouched. Zero sets it right again."""
    global _offset
    _offset = offset


def shifted() -> timedelta:
    """How far the wall clock of this process has been moved."""
    return _offset
