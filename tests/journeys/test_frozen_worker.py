"""A worker that was stopped beyond its death and wakes up writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.conftest import Ledger
from tests.support.chaos_kinds import InTransaction, Steps
from tests.support.kinds import Noop
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


def test_worker_suspended_until_marked_dead_loses_its_jobs(stack: Stack, ledger: Ledger) -> None:
    """Its job ends elsewhere; awake, it finds the fence moved, drops what it had and works on under a new name."""
    stack.env |= {"MILLRACE_WORKER_DEAD_S": "2", "MILLRACE_BEAT_S": "0.4"}
    stack.start(workers=2, api=False)
    job_id = ledger.enqueue(Steps(effects=3, pause_s=1.0))
    wait_until(lambda: ledger.effects(job_id), what="the first effect")
    frozen = ledger.worker_of(job_id)
    old_name = ledger.worker_id(frozen)
    frozen.freeze()

    assert ledger.wait(job_id, timeout_s=30).state == "succeeded"
    assert ledger.outcomes(job_id) == ["died", "succeeded"]
    written = ledger.effects(job_id)
    frozen.wake()
    wait_until(lambda: ledger.worker_id(frozen) not in ("", old_name), timeout_s=20, what="the woken worker's new name")

    for other in stack.workers:
        if other is not frozen:
            other.stop()
    assert ledger.wait(ledger.enqueue(Noop())).state == "succeeded", "the woken worker works again"
    assert ledger.effects(job_id) == written
    assert [effect for effect, _, _ in written] == [0, 1, 2]
    assert all(fence == job_fence for _, fence, job_fence in written)
    assert ledger.outcomes(job_id) == ["died", "succeeded"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer for all, frozen or not
def test_worker_suspended_inside_a_transaction(stack: Stack, ledger: Ledger, tmp_path: Path) -> None:
    """The lock that it holds on its job is taken from it: neither its job nor the relay waits until it wakes."""
    stack.env |= {"MILLRACE_WORKER_DEAD_S": "2", "MILLRACE_BEAT_S": "0.4"}
    stack.start(workers=2, api=False)
    inside = tmp_path / "inside"
    job_id = ledger.enqueue(InTransaction(path=str(inside), seconds=2.5))
    wait_until(inside.exists, what="the transaction to be open")
    frozen = ledger.worker_of(job_id)
    old_name = ledger.worker_id(frozen)
    frozen.freeze()
    assert ledger.wait(job_id, timeout_s=40).state == "succeeded"
    written = ledger.effects(job_id)
    frozen.wake()
    wait_until(lambda: ledger.worker_id(frozen) not in ("", old_name), timeout_s=20, what="the woken worker's new name")
    assert ledger.effects(job_id) == written
    assert [effect for effect, _, _ in written] == [0]
    assert ledger.outcomes(job_id) == ["died", "succeeded"]
