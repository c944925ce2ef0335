"""Questions that wait together are answered in one round trip."""

from __future__ import annotations

import asyncio

import pytest

from app.core.errors import Unavailable
from app.jobs.events.batcher import Batcher

pytestmark = pytest.mark.anyio


class Source:
    """Doubles numbers, and records the batches in which they came."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def double(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await asyncio.sleep(0)
        if -1 in numbers:
            raise Unavailable("down")
        return [2 * number for number in numbers]


async def test_waiting_requests_are_one_batch() -> None:
    source = Source()
    batcher = Batcher(source.double, name="doubles")
    assert await asyncio.gather(*(batcher.ask(number) for number in range(100))) == list(range(0, 200, 2))
    assert source.batches == [list(range(100))]


async def test_batch_size_is_limited_and_order_is_kept() -> None:
    source = Source()
    batcher = Batcher(source.double, name="doubles", max_batch=2)
    assert await asyncio.gather(*(batcher.ask(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert source.batches == [[0, 1], [2, 3], [4]]


async def test_error_reaches_each_caller_of_its_batch_only() -> None:
    source = Source()
    batcher = Batcher(source.double, name="doubles", max_batch=2)
    answers = await asyncio.gather(*(batcher.ask(number) for number in (1, -1, 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable, int]


async def test_cancelled_caller_does_not_affect_the_others() -> None:
    source = Source()
    batcher = Batcher(source.double, name="doubles")
    impatient = asyncio.create_task(batcher.ask(1))
    patient = asyncio.create_task(batcher.ask(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == 4
