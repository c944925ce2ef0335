"""Redis may be gone, flushed or new: every accepted job runs once."""

from __future__ import annotations

import shutil
import time

import pytest

from tests.journeys.conftest import Ledger
from tests.support.kinds import Sleep
from tests.support.services import RedisServer
from tests.support.stack import Stack

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


def test_redis_outage_loses_no_job(stack: Stack, ledger: Ledger, redis_server: RedisServer) -> None:
    """POST is still a 202, and quick; work resumes soon after Redis is back."""
    stack.start()
    running = ledger.enqueue(Sleep(seconds=1))
    ledger.wait(running, "running")
    redis_server.kill()
    accepted, slowest_s = [], 0.0
    for number in range(20):
        sent_at = time.monotonic()
        answer = stack.post("/api/documents", {"markdown": f"# Page {number}\n\nWritten in the dark."})
        slowest_s = max(slowest_s, time.monotonic() - sent_at)
        assert answer.status_code == 202
        accepted.append(answer.json()["id"])
    assert slowest_s < 2, "the target is a p99 of 50 ms on an idle machine"
    assert ledger.wait(running).state == "succeeded", "a running job does not need Redis"
    redis_server.start()
    back = time.monotonic()
    ledger.wait(accepted[0], timeout_s=15)
    print(
        f"slowest POST {1000 * slowest_s:.0f} ms, first job done {time.monotonic() - back:.1f} s after Redis was back"
    )
    assert {row.state for row in ledger.wait_all(accepted)} == {"succeeded"}


def test_redis_flush_and_restart_under_load_lose_no_job(
    stack: Stack, ledger: Ledger, redis_server: RedisServer
) -> None:
    """Three lives of Redis, each with jobs in its lists and in the worker's hands; every job ran once."""
    stack.start(api=False)

    def empty() -> None:
        redis_server.kill()
        shutil.rmtree(redis_server.folder / "appendonlydir", ignore_errors=True)
        redis_server.start()

    def restart() -> None:
        redis_server.kill()
        redis_server.start()

    jobs = []
    for strike in (redis_server.flush, restart, empty):
        jobs += [ledger.enqueue(Sleep(seconds=0.3, steps=2)) for _ in range(24)]
        ledger.wait(jobs[-24], "running", "succeeded")
        strike()
    assert {row.state for row in ledger.wait_all(jobs)} == {"succeeded"}
    assert {tuple(ledger.outcomes(job_id)) for job_id in jobs} == {("succeeded",)}
