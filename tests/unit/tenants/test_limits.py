"""Rates: what is a rate, and that several processes count as one, with Redis and without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta

import pytest

from app.core import clock
from app.core.errors import InvalidInput
from app.tenants import limits
from app.tenants.limits import Counter, RateLimit
from tests.support.databases import SettingsEnv

LONG = RateLimit(5, 86400)


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    """A day's window must not end under a test."""
    now = clock.now()
    clock.shift(now.replace(hour=12) - now)
    yield
    clock.shift(timedelta(0))


def run(scenario: Callable[[Counter, Counter], Coroutine[None, None, None]]) -> None:
    async def both() -> None:
        first, second = Counter(patience_s=10), Counter(patience_s=10)
        try:
            await scenario(first, second)
        finally:
            await first.close()
            await second.close()

    asyncio.run(both())


def test_rates_are_parsed_from_text() -> None:
    assert RateLimit.parse("50/minute") == RateLimit(50, 60)
    assert str(RateLimit.parse("50/minute")) == "50 per 1 minute"
    assert RateLimit.parse("unlimited") is None
    for bad in ("", "0/minute", "-1/hour", "5", "5/week", "5/minute ", "1e3/day", "٥/minute", "9999999999/day"):
        with pytest.raises(InvalidInput):
            RateLimit.parse(bad)
    for bad_route in ("", "/api/search", "post /api", "POST api", "POST /a b"):
        with pytest.raises(InvalidInput):
            limits.check_limits({bad_route: "1/day"})


def test_limit_of_a_key_precedes_that_of_the_route() -> None:
    own = {"POST /api/search": "7/hour", "*": "unlimited"}
    assert limits.of_key(own, "POST /api/search", LONG) == RateLimit(7, 3600)
    assert limits.of_key(own, "GET /api/jobs", LONG) is None
    assert limits.of_key({}, "GET /api/jobs", LONG) == LONG


def test_two_processes_count_as_one(redis_url: str, settings_env: SettingsEnv) -> None:
    settings_env(redis_url=redis_url)

    async def scenario(first: Counter, second: Counter) -> None:
        left = [(await counter.hit("b", LONG)).left for counter in (first, second, first, second, first)]
        assert left == [4, 3, 2, 1, 0]
        assert (await second.hit("b", LONG)).left < 0
        assert (await first.hit("other", LONG)).left == 4

    run(scenario)


def test_next_window_starts_from_zero(redis_url: str, settings_env: SettingsEnv) -> None:
    settings_env(redis_url=redis_url)

    async def scenario(first: Counter, second: Counter) -> None:
        for _ in range(6):
            last = await first.hit("b", LONG)
        assert last.left < 0
        assert 0 < last.reset_s <= 86400
        clock.shift(clock.shifted() + timedelta(seconds=last.reset_s + 60))
        assert (await first.hit("b", LONG)).left == 4

    run(scenario)


def test_concurrent_requests_do_not_exceed_the_limit(redis_url: str, settings_env: SettingsEnv) -> None:
    settings_env(redis_url=redis_url)

    async def scenario(first: Counter, second: Counter) -> None:
        counts = await asyncio.gather(*((first, second)[number % 2].hit("b", LONG) for number in range(60)))
        assert sum(count.left >= 0 for count in counts) == LONG.limit

    run(scenario)


def test_counting_is_local_far_from_the_limit_and_exact_near_it(redis_url: str, settings_env: SettingsEnv) -> None:
    settings_env(redis_url=redis_url)
    rate = RateLimit(200, 86400)

    async def scenario(first: Counter, second: Counter) -> None:
        for counter in (first, second):
            for _ in range(60):
                await counter.hit("b", rate)
            await counter.settle()
        # One has heard nothing since; what it asks from here on tells it all.
        left = [(await first.hit("b", rate)).left for _ in range(60)]
        await first.settle()
        assert (await first.hit("b", rate)).left == 200 - 181
        assert left == sorted(left, reverse=True)
        assert sum([(await (first, second)[n % 2].hit("b", rate)).left >= 0 for n in range(60)]) == 19

    run(scenario)


def test_without_redis_each_process_counts_alone(settings_env: SettingsEnv) -> None:
    settings_env(redis_url="redis://127.0.0.1:1/0")

    async def scenario(first: Counter, second: Counter) -> None:
        assert [(await first.hit("b", LONG)).left for _ in range(6)] == [4, 3, 2, 1, 0, -1]
        assert (await second.hit("b", LONG)).left == 4

    run(scenario)


def test_every_key_in_redis_expires(redis_url: str, settings_env: SettingsEnv) -> None:
    import redis

    settings_env(redis_url=redis_url)

    async def scenario(first: Counter, _: Counter) -> None:
        await first.hit("b", LONG)
        await first.hit("c", RateLimit(1, 60))

    run(scenario)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        names = client.keys("mr:rl:*")
        assert len(names) == 2
        assert all(client.ttl(name) > 0 for name in names)
