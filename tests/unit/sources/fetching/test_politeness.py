"""A host gets one request at a time with a pause after each, from all workers together."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest
import redis as redis_py

from app.core import clock
from app.core.errors import Snooze
from app.core.settings import get_settings
from app.sources.fetching.politeness import MAX_SNOOZE_S, SPREAD, gap_s, host_of, pause, take_turn
from tests.support.databases import SettingsEnv

NO_REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture(params=["redis", "alone"])
def unused_host(request: pytest.FixtureRequest, settings_env: SettingsEnv) -> Iterator[str]:
    """Store the turns in Redis, or in this process while Redis is down; return an unused host name."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else NO_REDIS
    settings_env(redis_url=url, fetch_host_delay_s=0.3)
    yield f"host-{clock.monotonic()}.example"


async def _spans(host: str, many: int, takes_s: float = 0.05) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []

    async def ask() -> None:
        async with take_turn(host):
            begun = clock.monotonic()
            await asyncio.sleep(takes_s)
            spans.append((begun, clock.monotonic()))

    await asyncio.gather(*(ask() for _ in range(many)))
    return sorted(spans)


def _gaps(spans: list[tuple[float, float]]) -> list[float]:
    return [after[0] - before[1] for before, after in pairwise(spans)]


def test_one_at_a_time_with_a_pause_between(unused_host: str) -> None:
    gaps = _gaps(asyncio.run(_spans(unused_host, 4)))
    assert min(gaps) > 0.28 and max(gaps) < 1.5


def test_long_request_delays_the_next_one(unused_host: str) -> None:
    """The next request begins after the end of a long one and the pause."""
    assert min(_gaps(asyncio.run(_spans(unused_host, 3, takes_s=0.7)))) > 0.28


def test_hosts_do_not_wait_for_each_other(unused_host: str) -> None:
    async def both() -> float:
        started = clock.monotonic()
        async with take_turn(unused_host), take_turn(f"other.{unused_host}"):
            return clock.monotonic() - started

    assert asyncio.run(both()) < 0.25


def test_long_wait_for_a_host_snoozes_the_job(unused_host: str) -> None:
    """Its worker slot is free for other jobs during the wait."""

    async def second() -> Snooze:
        async with take_turn(unused_host) as mine:
            mine.gap_s = 25.0
        with pytest.raises(Snooze) as later:
            async with take_turn(unused_host):
                pass
        return later.value

    later = asyncio.run(second())
    assert later.code == "host_busy" and 20 < later.retry_after_s <= 26 * (1 + SPREAD)


def test_snoozed_jobs_of_a_host_return_one_by_one(unused_host: str) -> None:
    """A thousand jobs of one site do not all return every twenty seconds, and none waits for long."""

    async def sent() -> list[float]:
        await pause(unused_host, 60)
        return [await _snooze_of(unused_host) for _ in range(200)]

    waits = asyncio.run(sent())
    assert 60 <= waits[0] <= 61 * (1 + SPREAD) and waits[-1] > 60 + 190 * 0.3
    assert asyncio.run(_last_of(unused_host)) <= MAX_SNOOZE_S * (1 + SPREAD)


async def _snooze_of(host: str, gap: float | None = None) -> float:
    with pytest.raises(Snooze) as later:
        async with take_turn(host, requested_gap_s=gap):
            pass
    return later.value.retry_after_s


async def _last_of(host: str) -> float:
    return max([await _snooze_of(host, 30.0) for _ in range(50)])


def test_retry_after_of_a_host_is_respected(unused_host: str) -> None:
    async def after() -> float:
        await pause(unused_host, 0.6)
        started = clock.monotonic()
        async with take_turn(unused_host):
            return clock.monotonic() - started

    assert 0.5 < asyncio.run(after()) < 1.5


def test_abandoned_turn_is_free(unused_host: str) -> None:
    """Cancelled during the wait, or during the request."""

    async def third() -> float:
        first = asyncio.ensure_future(_spans(unused_host, 2, takes_s=30))
        await asyncio.sleep(0.5)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        started = clock.monotonic()
        async with take_turn(unused_host):
            return clock.monotonic() - started

    assert asyncio.run(third()) < 2


def test_processes_share_turns_of_a_host(redis_url: str, settings_env: SettingsEnv) -> None:
    """No key stays in Redis."""
    settings_env(redis_url=redis_url, fetch_host_delay_s=0.3)
    code = (
        "import asyncio\nfrom app.core import clock\nfrom app.sources.fetching.politeness import take_turn\n"
        "async def ask():\n for _ in range(3):\n  async with take_turn('shared.example'):\n"
        "   print(clock.monotonic()); await asyncio.sleep(0.05); print(clock.monotonic())\nasyncio.run(ask())"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    spans: list[tuple[float, float]] = []
    for process in both:
        times = [float(line) for line in process.communicate(timeout=60)[0].split()]
        spans += list(zip(times[::2], times[1::2], strict=True))
    assert len(spans) == 6 and min(_gaps(sorted(spans))) > 0.28
    with redis_py.Redis.from_url(redis_url) as client:
        assert [key for key in client.keys("mr:host:*") if client.pttl(key) < 0] == []


def test_crawl_delay_of_robots_txt_is_capped(settings_env: SettingsEnv) -> None:
    settings_env(fetch_host_delay_s=2)
    assert get_settings().fetch_host_delay_s == 2
    assert (gap_s(None), gap_s(0.5), gap_s(7.0), gap_s(86_400.0)) == (2, 2, 7, 30)
    assert host_of("https://Example.ORG.:8443/x") == host_of("http://example.org/") == "example.org"
