"""When a schedule's ticks are: a cron line in a time zone, or an interval. Pure arithmetic, no SQL.

A line with a fixed hour and minute means the wall clock, as in Debian's cron: what falls into the hour that a change
of clocks leaves out comes right after it, and what falls into the doubled hour comes once. A line with a star as its
minute or hour follows real time: it skips the missing hour and runs through both of the doubled one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from app.core.errors import InvalidInput

LONGEST_CRON = 100
SHORTEST_INTERVAL_S = 60  # the scheduler looks once a minute
LONGEST_INTERVAL_S = 366 * 86400
NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# How far back to look for the last ticks of a long silence: a line of every minute need not be walked for a year.
_LOOKS = tuple(timedelta(days=days) for days in (0.1, 3, 100, 3000))


@dataclass(frozen=True, slots=True)
class Timing:
    """Either `cron`, five fields read in `timezone`, or `every_s` seconds counted from `anchor`."""

    cron: str | None
    every_s: int | None
    timezone: str
    anchor: datetime

    def check(self) -> None:
        """Raises InvalidInput that says what is wrong with it."""
        if (self.cron is None) == (self.every_s is None):
            raise InvalidInput("a schedule has either cron or every_s", code="schedule_timing")
        _zone(self.timezone)
        if self.every_s is not None:
            if not SHORTEST_INTERVAL_S <= self.every_s <= LONGEST_INTERVAL_S:
                limits = f"{SHORTEST_INTERVAL_S} to {LONGEST_INTERVAL_S}"
                raise InvalidInput(f"every_s: {limits} seconds, not {self.every_s}", code="schedule_timing")
            return
        try:
            never = next(self._walk(self.anchor), None) is None
        except (CronSimError, ValueError, AssertionError, OverflowError) as error:
            wrong = f"cron: {self.cron!r} is no line of five fields: {error}"
            raise InvalidInput(wrong, code="schedule_timing") from error
        if never:
            raise InvalidInput(f"cron: {self.cron!r} never comes", code="schedule_timing")

    def after(self, moment: datetime) -> datetime | None:
        """The first tick after the moment; None where none ever comes."""
        return next(self._walk(moment), None)

    def following(self, moment: datetime, count: int) -> list[datetime]:
        """The next ticks after the moment, `count` of them."""
        walk = self._walk(moment)
        return [tick for tick in (next(walk, None) for _ in range(count)) if tick is not None]

    def due(self, first: datetime, now: datetime, most: int) -> Due:
        """The last `most` ticks of those from `first`, a tick itself, up to now."""
        if self.cron is not None:
            return _due_of_line(self.cron, self.timezone, first, now, most)
        return self._due(first, now, most)

    def _due(self, first: datetime, now: datetime, most: int) -> Due:
        if self.every_s is not None:
            first = max(first, now - timedelta(seconds=self.every_s * (most + 1)))
        for look in _LOOKS:
            start = max(first, now - look)
            ticks: list[datetime] = []
            upcoming = None
            for tick in self._walk(start - timedelta(seconds=1)):
                if tick > now:
                    upcoming = tick
                    break
                ticks.append(tick)
            if start == first or len(ticks) >= most:
                break
        return Due(tuple(ticks[-most:]), start > first or len(ticks) > most, upcoming)

    def _walk(self, moment: datetime) -> Iterator[datetime]:
        """Every tick after the moment, in UTC, rising."""
        if self.every_s is not None:
            step = timedelta(seconds=self.every_s)
            tick = self.anchor + ((moment - self.anchor) // step + 1) * step
            while True:
                yield tick
                tick += step
        assert self.cron is not None
        # The wall clock shows an hour twice in autumn; asked in its second turn, the line may answer with the first.
        last = moment
        for found in CronSim(_five_fields(self.cron), moment.astimezone(_zone(self.timezone))):
            tick = found.astimezone(UTC)
            if tick > last:
                last = tick
                yield tick


@dataclass(frozen=True, slots=True)
class Due:
    """Ticks that have come, the oldest first; whether there were others before them; and the next one."""

    ticks: tuple[datetime, ...]
    more: bool
    upcoming: datetime | None


@lru_cache(maxsize=500)
def _due_of_line(cron: str, timezone: str, first: datetime, now: datetime, most: int) -> Due:
    """Thousands of schedules may have one line; it is walked once a tick."""
    return Timing(cron, None, timezone, first)._due(first, now, most)


def _five_fields(cron: str) -> str:
    """The line as five fields. Raises InvalidInput for another number of them: seconds are nobody's here."""
    line = NAMES.get(cron.strip().lower(), cron)
    if len(line.split()) != 5 or len(line) > LONGEST_CRON or not line.isascii():
        known = ", ".join(NAMES)
        raise InvalidInput(
            f"cron: {cron!r} is no line of five fields (minute, hour, day, month, weekday) and none of {known}",
            code="schedule_timing",
        )
    return line


@lru_cache(maxsize=1000)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # a path, a folder, no such zone
        raise InvalidInput(f"timezone: {name!r} is no time zone (example: Europe/Berlin)", code="timezone") from error
