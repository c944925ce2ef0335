"""Orders to a real worker: paused it finishes running jobs, resumed it goes on, drained it exits."""

from __future__ import annotations

import pytest

from app.core.db import database
from app.jobs.ledger import workers
from tests.support.kinds import Noop, Sleep
from tests.support.waiting import wait_until
from tests.unit.actors.conftest import Plant

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.mark.parametrize("plant", ["postgresql"], indirect=True)
def test_pause_resume_and_drain(plant: Plant) -> None:
    plant.env["MILLRACE_BEAT_S"] = "30"  # so a beat cannot deliver the order
    plant.env["MILLRACE_GRACE_S"] = "0"  # a drain waits for its jobs, whatever a stop would do
    worker = plant.worker()
    (worker_id,) = plant.workers()
    running = plant.enqueue(Sleep(seconds=3))
    plant.until_begun(running)
    database().transaction(workers.order, worker_id, "pause")
    later = plant.enqueue(Noop())
    plant.until(running, "succeeded")
    assert plant.row(later).state == "queued"
    database().transaction(workers.order, worker_id, "resume")
    plant.until(later, "succeeded")
    last = plant.enqueue(Sleep(seconds=2))
    plant.until_begun(last)
    database().transaction(workers.order, worker_id, "drain")
    left_over = plant.enqueue(Noop())
    plant.until(last, "succeeded")
    wait_until(lambda: not worker.alive, timeout_s=60, what="the drained worker to end")
    assert plant.workers("stopped") == [worker_id]
    assert plant.row(left_over).state == "queued"
