"""Rates of outside services: the line of a key, in Redis and in memory, and who is sent away."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core.errors import Snooze
from app.core.ids import uuid7
from app.jobs.definition import Rate
from app.jobs.worker import call_rates
from tests.support.databases import SettingsEnv

EVERY_SECOND = Rate(1)


@pytest.fixture(params=["redis", "memory"])
def key(request: pytest.FixtureRequest, settings_env: SettingsEnv) -> str:
    """A fresh key, kept in Redis or, while that is away, in this process."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else "redis://127.0.0.1:1/0"
    settings_env(redis_url=url)
    return uuid7()


def test_calls_of_a_key_are_spaced(key: str) -> None:
    waits = [call_rates.reserve(key, Rate(1, per_s=60), 1000) for _ in range(4)]
    assert waits[0] == 0
    assert all(60 * place - 30 < wait <= 60 * place for place, wait in enumerate(waits[1:], start=1))


def test_burst_is_allowed_at_once(key: str) -> None:
    waits = [call_rates.reserve(key, Rate(1, per_s=60, burst=3), 1000) for _ in range(5)]
    assert waits[:3] == [0, 0, 0]
    assert 30 < waits[3] <= 60 < waits[4] <= 120


def test_call_with_a_long_wait_is_snoozed_without_a_reservation(key: str) -> None:
    call_rates.reserve(key, Rate(1, per_s=3600))
    for _ in range(3):
        with pytest.raises(Snooze) as sent:
            call_rates.reserve(key, Rate(1, per_s=3600))
        assert 3000 < sent.value.retry_after_s <= 3600 * (1 + call_rates.SPREAD)
    assert 3000 < call_rates.reserve(key, Rate(1, per_s=3600), 4000) <= 3600


def test_keys_have_separate_rates(key: str) -> None:
    assert [call_rates.reserve(f"{key}{number}", EVERY_SECOND) for number in range(5)] == [0] * 5
    assert call_rates.reserve(f"{key} \N{SNOWMAN}\x00" + "x" * 10_000, EVERY_SECOND) == 0


def test_threads_never_get_the_same_slot(key: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        waits = sorted(pool.map(lambda _: call_rates.reserve(key, Rate(1, per_s=100), 10_000), range(40)))
    assert all(later - earlier > 50 for earlier, later in itertools.pairwise(waits))


def test_take_waits_for_its_turn(key: str) -> None:
    async def take_three() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(*(call_rates.take(key, Rate(10)) for _ in range(3)))
        return loop.time() - begun

    assert asyncio.run(take_three()) >= 0.19


@pytest.mark.parametrize("wrong", [{"calls": 0}, {"calls": 1, "per_s": 0}, {"calls": 1, "burst": 0}])
def test_invalid_rate_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="invalid rate"):
        Rate(**wrong)  # type: ignore[arg-type]
