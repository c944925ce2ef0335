"""Times of ticks: cron expressions with time zones and clock changes, Sundays, intervals, long gaps."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.errors import InvalidInput
from app.jobs.schedules.cron import MAX_INTERVAL_S, TickTimes

ANCHOR = datetime(2026, 1, 1, 10, 0, 7, tzinfo=UTC)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def line(cron: str, zone: str = "UTC") -> TickTimes:
    return TickTimes(cron, None, zone, ANCHOR)


def local(timing: TickTimes, moment: datetime, count: int) -> list[str]:
    zone = ZoneInfo(timing.timezone)
    return [f"{tick.astimezone(zone):%m-%d %H:%M %Z}" for tick in timing.following(moment, count)]


@pytest.mark.parametrize("sunday", ["0 0 * * 0", "0 0 * * 7", "0 0 * * SUN", "@weekly", "0 0 * * 6-7"])
def test_every_notation_of_sunday_works(sunday: str) -> None:
    ticks = line(sunday).following(at("2026-11-22 00:00"), 4)
    sundays = [tick for tick in ticks if tick.isoweekday() == 7]
    assert sundays
    assert sundays[0] == at("2026-11-29 00:00")
    assert len(ticks) == len(sundays) or sunday == "0 0 * * 6-7"


def test_expression_is_read_in_its_time_zone() -> None:
    assert line("30 7 * * *", "Asia/Kathmandu").after(at("2026-06-01 00:00")) == at("2026-06-01 01:45")
    assert line("0 9 * * 1-5", "America/New_York").after(at("2026-07-03 20:00")) == at("2026-07-06 13:00")


def test_ticks_in_the_missing_hour_come_once_right_after_it() -> None:
    before = at("2026-03-28 12:00")
    assert local(line("30 2 * * *", "Europe/Berlin"), before, 2) == ["03-29 03:00 CEST", "03-30 02:30 CEST"]
    both = line("0,30 2,3 * * *", "Europe/Berlin")
    assert local(both, at("2026-03-28 23:00"), 3) == ["03-29 03:00 CEST", "03-29 03:30 CEST", "03-30 02:00 CEST"]


def test_tick_in_the_repeated_hour_comes_once() -> None:
    timing = line("30 2 * * *", "Europe/Berlin")
    assert local(timing, at("2026-10-24 12:00"), 2) == ["10-25 02:30 CEST", "10-26 02:30 CET"]
    second_turn = at("2026-10-25 00:30") + timedelta(minutes=40)  # 02:10 for the second time
    assert local(timing, second_turn, 1) == ["10-26 02:30 CET"]


def test_expression_with_a_star_follows_elapsed_time() -> None:
    half_hours = line("*/30 * * * *", "Europe/Berlin").following(at("2026-10-24 23:00"), 8)
    assert {later - earlier for earlier, later in itertools.pairwise(half_hours)} == {timedelta(minutes=30)}


@pytest.mark.parametrize(
    "wrong",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* * * * 8", "5-1 * * * *", "*/0 * * * *", "0 0 30 2 *", "@reboot",
     "a b c d e", "0 0 * * MON#6", "½ * * * *", "9" * 90 + " * * * *", "0 0 */31 2 SUN#5"],
)  # fmt: skip
def test_invalid_expression_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="cron"):
        line(wrong).check()


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "a\x00b", "x" * 300]
)
def test_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidInput, match="timezone"):
        line("0 0 * * *", zone).check()


@settings(deadline=None)
@given(st.text(alphabet="0123456789*/,-#LW SUNMOJ@", max_size=30))
@example("* * L/2 * *")
@example("0 0 * * 1#1/2")
def test_any_text_is_valid_or_refused(text: str) -> None:
    timing = line(text)
    try:
        timing.check()
    except InvalidInput:
        return
    assert timing.after(ANCHOR) is not None


@pytest.mark.parametrize("every_s", [0, -5, 59, MAX_INTERVAL_S + 1])
def test_interval_out_of_bounds_is_refused(every_s: int) -> None:
    with pytest.raises(InvalidInput, match="every_s"):
        TickTimes(None, every_s, "UTC", ANCHOR).check()


def test_timing_needs_either_a_cron_expression_or_an_interval() -> None:
    for cron, every_s in ((None, None), ("* * * * *", 60)):
        with pytest.raises(InvalidInput, match="either"):
            TickTimes(cron, every_s, "UTC", ANCHOR).check()


@given(st.integers(60, 100_000), st.integers(-(10**6), 10**8))
def test_interval_counts_from_its_anchor_without_drift(every_s: int, passed_s: int) -> None:
    moment = ANCHOR + timedelta(seconds=passed_s)
    tick = TickTimes(None, every_s, "UTC", ANCHOR).after(moment)
    assert tick is not None
    assert timedelta(0) < tick - moment <= timedelta(seconds=every_s)
    assert (tick - ANCHOR) % timedelta(seconds=every_s) == timedelta(0)


LINES = st.sampled_from(
    ["*/7 * * * *", "30 2 * * *", "15 1-3 * * 0", "0 0 1 * *", "0 12 29 2 *", "5 4 * * 7", "0 */6 * * *"]
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana"])
MOMENTS = st.integers(0, 3 * 365 * 24 * 60).map(lambda minutes: at("2025-01-01 00:00") + timedelta(minutes=minutes))


@settings(deadline=None, max_examples=40)
@given(LINES, ZONES, MOMENTS, st.timedeltas(timedelta(0), timedelta(days=4)), st.integers(1, 12))
@example("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, tzinfo=UTC), timedelta(days=2), 3)
@example("0,30 0 * * *", "America/Havana", datetime(2026, 3, 7, tzinfo=UTC), timedelta(days=3), 3)
def test_due_ticks_are_the_last_of_a_step_by_step_walk(
    cron: str, zone: str, moment: datetime, gap: timedelta, limit: int
) -> None:
    """After a gap of any length from any moment, the ticks are the same, each once, in order."""
    timing = line(cron, zone)
    first = timing.after(moment)
    assert first is not None
    now = first + gap
    walked = [first]
    while (tick := timing.after(walked[-1])) is not None and tick <= now:
        walked.append(tick)
    due = timing.due(first, now, limit)
    assert list(due.ticks) == walked[-limit:]
    assert due.more == (len(walked) > limit)
    assert due.upcoming == timing.after(now)


def test_due_ticks_after_years_are_exact() -> None:
    due = line("* * * * *").due(at("2010-01-01 00:00"), at("2026-01-01 00:00"), 3)
    assert due.ticks == (at("2025-12-31 23:58"), at("2025-12-31 23:59"), at("2026-01-01 00:00"))
    assert due.more
    interval = TickTimes(None, 60, "UTC", at("2010-01-01 00:00")).due(at("2010-01-01 00:01"), at("2026-01-01 00:00"), 2)
    assert (interval.ticks, interval.more) == ((at("2025-12-31 23:59"), at("2026-01-01 00:00")), True)
