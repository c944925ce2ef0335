"""Times in requests."""

from __future__ import annotations

from datetime import UTC, datetime

from app.core.errors import InvalidInput


def utc(moment: datetime | None, name: str) -> datetime | None:
    """Return the time in UTC, also the zone of times without one. Raises InvalidInput beyond the calendar."""
    if moment is None:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(f"{name} must be a time between the years 1 and 9999", code="time") from error
