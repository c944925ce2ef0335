"""A cancel holds: a waiting job never starts, an awaiting one stops at once, a computing one is killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.journeys.conftest import Ledger
from tests.support.kinds import Compute, Noop, Sleep, Touch
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


def _cancel(stack: Stack, ledger: Ledger, job_id: str) -> float:
    """Seconds from the request to the cancelled row."""
    requested_at = time.monotonic()
    assert stack.post(f"/api/jobs/{job_id}/cancel", None).status_code in (200, 202)
    ledger.wait(job_id, "cancelled", timeout_s=10)
    return time.monotonic() - requested_at


def test_cancelled_job_stops(stack: Stack, ledger: Ledger, tmp_path: Path) -> None:
    stack.start(workers=0)
    path = tmp_path / "touched"
    waiting = ledger.enqueue(Touch(path=str(path)))
    _cancel(stack, ledger, waiting)
    stack.add_worker()
    after = ledger.enqueue(Noop())
    assert ledger.wait(after).state == "succeeded"
    assert not path.exists(), "it lay before the other one in the queue and was cancelled"

    awaiting = ledger.enqueue(Sleep(seconds=60, steps=600))
    wait_until(lambda: ledger.state(awaiting) == "running", what="the job to run")
    took_s = _cancel(stack, ledger, awaiting)
    assert took_s < 2, "the target is 0.25 s on an idle machine"

    computing = ledger.enqueue(Compute(seconds=60))
    wait_until(lambda: stack.job(computing)["progress"]["done"], timeout_s=20, what="the sandbox to report")
    in_sandbox_s = _cancel(stack, ledger, computing)
    assert in_sandbox_s < 5, "the target is 2 s"
    print(f"cancelled after {1000 * took_s:.0f} ms awaiting, {1000 * in_sandbox_s:.0f} ms in a sandbox")

    assert [ledger.outcomes(job_id) for job_id in (waiting, awaiting, computing)] == [[], ["cancelled"], ["cancelled"]]
    retried = stack.post(f"/api/jobs/{waiting}/retry", None)
    assert retried.status_code == 202
    assert ledger.wait(waiting).state == "succeeded"
    assert path.exists()
