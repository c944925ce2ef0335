"""Lines that jobs log in a real worker, on its loop, in its threads and in its sandboxes, are stored with the job."""

from __future__ import annotations

import pytest

from app.core.db import database
from app.jobs.sandbox import job_log
from app.jobs.sandbox.job_log import MAX_LINES_PER_RUN, MORE
from tests.support.kinds import Talk, TalkInSandbox
from tests.support.waiting import wait_until
from tests.unit.actors.conftest import Plant

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.mark.parametrize("plant", ["sqlite"], indirect=True)
def test_log_lines_of_async_and_sandboxed_jobs_are_stored(plant: Plant) -> None:
    plant.env["MILLRACE_LOG_LEVEL"] = "info"  # without Dramatiq's own
    worker = plant.worker()
    awaiting = plant.enqueue(Talk(secret="hidden"))
    sandbox = plant.enqueue(TalkInSandbox(lines=MAX_LINES_PER_RUN + 100))
    for job_id in (awaiting, sandbox):
        plant.until(job_id, "succeeded")

    def lines(job_id: str) -> list[str]:
        rows = database().read(job_log.read_lines, job_id, limit=5000)
        assert "hidden" not in str([line.fields for line in rows])
        return [line.event for line in rows]

    expected = ["hello", "plain words", "from a thread", "caught"]
    wait_until(lambda: lines(awaiting) == expected, what=f"{expected}, not {lines(awaiting)}")
    wait_until(lambda: lines(sandbox)[-1:] == [MORE], what="the last line kept from the sandbox")
    assert lines(sandbox)[:-1] == ["in a sandbox"] * MAX_LINES_PER_RUN
    last = plant.enqueue(TalkInSandbox(lines=3))
    plant.until(last, "succeeded")
    worker.term()
    plant.until_nobody_lives(timeout_s=30)
    assert lines(last) == ["in a sandbox"] * 3
