"""Times that callers give."""

from __future__ import annotations

from datetime import UTC, datetime

from app.core.errors import InvalidInput


def utc(moment: datetime | None, name: str) -> datetime | None:
    """In UTC, which is also what a time without a zone means. Raises InvalidInput beyond the calendar's ends."""
    if moment is None:
        return None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(f"{name}: not a time we know", code="time") from error
