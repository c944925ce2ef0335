"""Times of a schedule's ticks: a cron line in a time zone, or an interval. Pure arithmetic, no SQL.

A line with a fixed hour and minute follows the wall clock, as in Debian's cron: a tick in the hour that a clock change
skips comes right after it, and a tick in the repeated hour comes once. A line with a star as its minute or hour
follows real time: it skips the missing hour and fires in both repeated hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from app.core.errors import InvalidInput

MAX_CRON_LENGTH = 100
MIN_INTERVAL_S = 60  # the scheduler looks once a minute
MAX_INTERVAL_S = 366 * 86400
NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Spans to search backwards for the last ticks after a long pause; a line of every minute need not walk a year.
_LOOKS = tuple(timedelta(days=days) for days in (0.1, 3, 100, 3000))


@dataclass(frozen=True, slots=True)
class TickTimes:
    """Either `cron`, five fields read in `timezone`, or `every_s` seconds counted from `anchor`."""

    cron: str | None
    every_s: int | None
    timezone: str
    anchor: datetime

    def check(self) -> None:
        """Raise InvalidInput that names the wrong field, if any."""
        if (self.cron is None) == (self.every_s is None):
            raise InvalidInput("a schedule has either cron or every_s", code="schedule_timing")
        _zone(self.timezone)
        if self.every_s is not None:
            if not MIN_INTERVAL_S <= self.every_s <= MAX_INTERVAL_S:
                limits = f"{MIN_INTERVAL_S} to {MAX_INTERVAL_S}"
                raise InvalidInput(f"every_s must be {limits} seconds, not {self.every_s}", code="schedule_timing")
            return
        try:
            never = next(self._walk(self.anchor), None) is None
        except (CronSimError, ValueError, AssertionError, OverflowError) as error:
            wrong = f"cron {self.cron!r} is not a line of five fields: {error}"
            raise InvalidInput(wrong, code="schedule_timing") from error
        if never:
            raise InvalidInput(f"cron {self.cron!r} never fires", code="schedule_timing")

    def after(self, moment: datetime) -> datetime | None:
        """Return the first tick after the moment; None if it never fires again."""
        return next(self._walk(moment), None)

    def following(self, moment: datetime, count: int) -> list[datetime]:
        """Return the next `count` ticks after the moment."""
        walk = self._walk(moment)
        return [tick for tick in (next(walk, None) for _ in range(count)) if tick is not None]

    def due(self, first: datetime, now: datetime, limit: int) -> Due:
        """Return the last `limit` ticks from `first`, itself a tick, up to now."""
        if self.cron is not None:
            return _due_of_line(self.cron, self.timezone, first, now, limit)
        return self._due(first, now, limit)

    def _due(self, first: datetime, now: datetime, limit: int) -> Due:
        if self.every_s is not None:
            first = max(first, now - timedelta(seconds=self.every_s * (limit + 1)))
        for look in _LOOKS:
            start = max(first, now - look)
            ticks: list[datetime] = []
            upcoming = None
            for tick in self._walk(start - timedelta(seconds=1)):
                if tick > now:
                    upcoming = tick
                    break
                ticks.append(tick)
            if start == first or len(ticks) >= limit:
                break
        return Due(tuple(ticks[-limit:]), start > first or len(ticks) > limit, upcoming)

    def _walk(self, moment: datetime) -> Iterator[datetime]:
        """Yield each tick after the moment, in UTC, in order."""
        if self.every_s is not None:
            step = timedelta(seconds=self.every_s)
            tick = self.anchor + ((moment - self.anchor) // step + 1) * step
            while True:
                yield tick
                tick += step
        assert self.cron is not None
        # In autumn the wall clock shows an hour twice; asked in the second, the library may answer with the first.
        last = moment
        for local in CronSim(_five_fields(self.cron), moment.astimezone(_zone(self.timezone))):
            tick = local.astimezone(UTC)
            if tick > last:
                last = tick
                yield tick


@dataclass(frozen=True, slots=True)
class Due:
    """Past ticks, the oldest first; `more` if there were others before them; and the next tick."""

    ticks: tuple[datetime, ...]
    more: bool
    upcoming: datetime | None


@lru_cache(maxsize=500)
def _due_of_line(cron: str, timezone: str, first: datetime, now: datetime, limit: int) -> Due:
    """Cached, because thousands of schedules may share one line."""
    return TickTimes(cron, None, timezone, first)._due(first, now, limit)


def _five_fields(cron: str) -> str:
    """Return the line as five fields. Raises InvalidInput for another number; seconds are not supported."""
    line = NAMES.get(cron.strip().lower(), cron)
    if len(line.split()) != 5 or len(line) > MAX_CRON_LENGTH or not line.isascii():
        known = ", ".join(NAMES)
        raise InvalidInput(
            f"cron {cron!r} is neither a line of five fields (minute, hour, day, month, weekday) nor one of {known}",
            code="schedule_timing",
        )
    return line


@lru_cache(maxsize=1000)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # a path, a folder, no such zone
        raise InvalidInput(
            f"timezone {name!r} is not a known time zone (example: Europe/Berlin)", code="timezone"
        ) from error
