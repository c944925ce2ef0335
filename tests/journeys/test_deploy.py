"""A deploy costs no job an attempt, and a full restart loses none."""

from __future__ import annotations

import itertools
import shutil
import threading
from datetime import timedelta

import pytest

from app.core import clock
from tests.journeys.conftest import Ledger
from tests.support.kinds import Sleep
from tests.support.services import RedisServer
from tests.support.stack import Stack

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


def test_a_rolling_deploy_under_load(stack: Stack, ledger: Ledger) -> None:
    """A new worker comes up, the old one gets SIGTERM: no try is burnt, nothing is lost or run twice."""
    stack.start(workers=1, api=False)
    jobs: list[str] = []
    done = threading.Event()

    def load() -> None:
        for number in itertools.count():
            if done.wait(0.05):
                return
            jobs.append(ledger.enqueue(Sleep(seconds=0.1 + number % 5 / 10, steps=3)))

    loader = threading.Thread(target=load)
    loader.start()
    try:
        [old] = stack.workers
        stack.add_worker()
        old.term()
        assert old.wait(20) == 0
    finally:
        done.set()
        loader.join()
    rows = ledger.wait_all(jobs)
    assert len(rows) > 20, "there was a load"
    assert {(row.state, row.tries, row.crashes) for row in rows} == {("succeeded", 0, 0)}
    outcomes = [ledger.outcomes(job_id) for job_id in jobs]
    assert {outcome for each in outcomes for outcome in each} <= {"succeeded", "handed_back"}
    assert all(each.count("succeeded") == 1 for each in outcomes)


def test_everything_killed_and_started_again(stack: Stack, ledger: Ledger, redis_server: RedisServer) -> None:
    """Queued, scheduled and running jobs are all done after a power cut of every process and an empty Redis."""
    stack.start(workers=1, api=False)
    jobs = [ledger.enqueue(Sleep(seconds=0.5, steps=2)) for _ in range(40)]
    jobs.append(ledger.enqueue(Sleep(seconds=0.1), due_at=clock.now() + timedelta(seconds=2)))
    ledger.wait(jobs[0], "running", "succeeded")
    for process in stack.processes:
        process.kill()
    redis_server.kill()
    shutil.rmtree(redis_server.folder / "appendonlydir", ignore_errors=True)
    redis_server.start()
    for process in stack.processes:
        process.start()
    stack.wait_ready()
    assert {row.state for row in ledger.wait_all(jobs)} == {"succeeded"}
    assert {ledger.outcomes(job_id)[-1] for job_id in jobs} == {"succeeded"}
    assert {outcome for job_id in jobs for outcome in ledger.outcomes(job_id)} <= {"succeeded", "died"}
