"""Times, durations, sizes and JSON as text of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.core import clock

THIN_SPACE = "\u2009"
_UNITS = (("day", 86400), ("h", 3600), ("min", 60))
COMMON_ZONES = (
    "UTC", "Europe/London", "Europe/Berlin", "Europe/Madrid", "Europe/Kyiv", "America/New_York", "America/Chicago",
    "America/Los_Angeles", "America/Mexico_City", "America/Sao_Paulo", "Africa/Nairobi", "Asia/Dubai", "Asia/Kolkata",
    "Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney",
)  # fmt: skip
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def parse(moment: str | datetime) -> datetime:
    """Return a time of the API as a datetime in UTC."""
    return moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)


@lru_cache(maxsize=200)
def zone_of(name: str) -> ZoneInfo | None:
    """Return the zone, None for an unknown name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def absolute(moment: str | datetime, zone: str) -> str:
    """Return `29 Nov 2026 14:03:21 CET` in the zone."""
    local = parse(moment).astimezone(zone_of(zone) or UTC)
    return f"{local:%-d %b %Y %H:%M:%S} {local.tzname()}"


def relative(moment: str | datetime, now: datetime | None = None) -> str:
    """Return `3 min ago` or `in 2 h`."""
    seconds = ((now or clock.now()) - parse(moment)).total_seconds()
    text = span(abs(seconds))
    if abs(seconds) < 1:
        return "now"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def span(seconds: float) -> str:
    """Return `3 days`, `2 h`, `5 min` or `42 s`: the largest unit, rounded down."""
    for unit, size in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{int(seconds)} s"


def duration(seconds: float | None) -> str:
    """Return `840 ms`, `12.4 s`, `3 min 05 s` or `2 h 10 min`; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def between(start: str | None, end: str | None) -> str:
    """Return the duration from start to end, now for an open end."""
    if start is None:
        return "–"
    return duration(max(0.0, ((parse(end) if end else clock.now()) - parse(start)).total_seconds()))


def size(count: float | None) -> str:
    """Return `4.1 MiB`; a dash for None."""
    if count is None:
        return "–"
    for unit in _SIZES:
        if count < 1024 or unit == _SIZES[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes every size")


def number(value: float | None) -> str:
    """Return an integer with thin spaces between groups of three digits; a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", THIN_SPACE)


def as_json(value: Any) -> str:
    """Return the value as indented JSON with sorted keys; numbers keep all their digits."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)


def mask(value: Any, names: tuple[str, ...] = ("password", "secret", "token", "authorization", "api_key")) -> Any:
    """Return JSON with texts under keys that name a secret replaced by dots."""
    if isinstance(value, Mapping):
        return {key: _masked(str(key).lower(), item, names) for key, item in value.items()}
    return [mask(item, names) for item in value] if isinstance(value, list) else value


def _masked(key: str, item: Any, names: tuple[str, ...]) -> Any:
    is_secret = isinstance(item, str) and any(name in key for name in names)
    return "•••" if is_secret else mask(item, names)
