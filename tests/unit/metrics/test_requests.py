"""Request timings wait for SQL in a bounded queue that drops the oldest; each timing is written once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.core import clock, metrics
from app.core.db import Database, database
from app.metrics.models import RequestMetric
from app.metrics.requests import RequestRecorder, RequestTiming
from tests.support.databases import SettingsEnv
from tests.support.waiting import wait_until_async

pytestmark = pytest.mark.anyio


def _timing(number: int) -> RequestTiming:
    return RequestTiming(clock.now(), None, "GET", f"/{number}", "/", 200, 1.0, str(number), None)


def _written() -> list[int]:
    rows = database().read(lambda session: list(session.scalars(sa.select(RequestMetric.path).order_by("id"))))
    return [int(path[1:]) for path in rows]


async def _wait_until_empty(recorder: RequestRecorder) -> None:
    async def is_empty() -> bool:
        return len(recorder) == 0

    await wait_until_async(is_empty, what="the queue to be empty")


async def test_full_recorder_drops_the_oldest(sqlite_db: Database) -> None:
    recorder = RequestRecorder(max_held=5)
    before = metrics.REQUEST_METRICS_DROPPED._value.get()
    for number in range(8):
        recorder.add(_timing(number))
    assert (len(recorder), recorder.dropped) == (5, 3)
    assert metrics.REQUEST_METRICS_DROPPED._value.get() - before == 3
    recorder.start()
    await recorder.close()
    assert _written() == [3, 4, 5, 6, 7]
    assert len(recorder) == 0


async def test_batches_are_written_in_order(db: Database) -> None:
    recorder = RequestRecorder(interval_s=0.01)
    recorder.start()
    for number in range(1300):
        recorder.add(_timing(number))
    await _wait_until_empty(recorder)
    recorder.add(_timing(1300))
    await recorder.close()
    assert _written() == list(range(1301))


async def test_timing_dropped_during_a_write_is_not_removed_twice(sqlite_db: Database) -> None:
    """New timings arrive during a write and push out the head of its batch."""
    recorder = RequestRecorder(max_held=20, interval_s=0.001)
    for number in range(20):
        recorder.add(_timing(number))
    recorder.start()
    number = 20
    while recorder.dropped < 400:
        recorder.add(_timing(number))
        number += 1
        if number % 30 == 0:
            await asyncio.sleep(0)
    await recorder.close()
    written = _written()
    assert len(written) == len(set(written)) and written == sorted(written)
    assert written[-20:] == list(range(number - 20, number))
    assert len(recorder) == 0


async def test_failed_write_is_retried(sqlite_url: str, settings_env: SettingsEnv, tmp_path: Path) -> None:
    settings_env(database_url=f"sqlite:///{tmp_path}/no/such/folder.db")
    recorder = RequestRecorder(interval_s=0.01)
    recorder.add(_timing(1))
    recorder.start()
    await asyncio.sleep(0.1)
    assert len(recorder) == 1
    settings_env(database_url=sqlite_url)
    await _wait_until_empty(recorder)
    await recorder.close()
    assert _written() == [1]


async def test_close_without_sql_returns(settings_env: SettingsEnv, tmp_path: Path) -> None:
    settings_env(database_url=f"sqlite:///{tmp_path}/no/such/folder.db")
    recorder = RequestRecorder()
    recorder.add(_timing(1))
    recorder.start()
    await asyncio.wait_for(recorder.close(), 5)
