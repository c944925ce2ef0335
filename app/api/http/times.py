"""Times in requests."""

from __future__ import annotations

from datetime import UTC, datetime

from app.core.errors import InvalidInput

MIN_YEAR = 2000


def utc(moment: datetime | None, name: str) -> datetime | None:
    """Return the time in UTC, also the zone of times without one. Raises InvalidInput beyond the calendar."""
    if moment is None:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(f"{name} must be a time between the years 1 and 9999", code="time") from error


def zoned(moment: datetime | None, name: str) -> datetime | None:
    """Return a time at which something is to happen, in UTC.

    Raises InvalidInput without a zone, which would be a guess, and before MIN_YEAR, which is a slip.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        message = f"{name} must have a time zone, for example {moment.isoformat()}Z or {moment.isoformat()}+01:00"
        raise InvalidInput(message, code="time_zone")
    at = utc(moment, name)
    if at is None or at.year < MIN_YEAR:
        raise InvalidInput(f"{name} must be a time from {MIN_YEAR} on, not {moment.isoformat()}", code="time")
    return at
