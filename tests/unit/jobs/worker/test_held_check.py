"""A job that the ledger shows as running is one that its worker holds, or it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from app.core import clock
from app.core.db import database
from app.jobs.ledger import claims
from app.jobs.worker.held_check import INTERVAL_S, MIN_AGE
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, Outage, WorkerHarness

on_postgres = pytest.mark.parametrize("spine_env", ["postgresql"], indirect=True)


@contextmanager
def later() -> Iterator[None]:
    """Move the clock beyond the age at which a claim is checked."""
    before = clock.shifted()
    clock.shift(before + MIN_AGE + timedelta(seconds=1))
    try:
        yield
    finally:
        clock.shift(before)


def check(harness: WorkerHarness) -> None:
    """Run the check once, whatever the time since the last one."""
    harness.process.held_check._next_at = 0.0
    harness.process.held_check.run(harness.process.id)


def claim_unheld(harness: WorkerHarness) -> str:
    """Return a job that this worker has claimed in the ledger, and holds no run of."""
    (job_id,) = harness.enqueue(Chore())
    assert database().transaction(claims.claim, [job_id], harness.process.id)
    return job_id


def test_a_job_that_no_run_holds_ends_as_a_failed_try(harness: WorkerHarness) -> None:
    job_id = claim_unheld(harness)
    with later():
        check(harness)
        assert harness.state(job_id) == "running"  # the second look decides
        check(harness)
        row = harness.until(job_id, "retrying")
    assert (row.tries, row.error_code) == (1, "not_held")
    (attempt,) = harness.ledger.attempts(job_id)
    assert (attempt.outcome, attempt.error_message) == (
        "retrying",
        "the worker no longer held this job; its end was lost",
    )


def test_held_job_and_fresh_claim_are_not_changed(harness: WorkerHarness) -> None:
    (held,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    fresh = claim_unheld(harness)
    check(harness)
    check(harness)
    assert (harness.state(held), harness.state(fresh)) == ("running", "running")
    with later():
        check(harness)
        check(harness)
        harness.until(fresh, "retrying")
        assert harness.state(held) == "running"


@on_postgres
def test_an_end_that_waits_for_the_database_counts_as_held(harness: WorkerHarness, outage: Outage) -> None:
    harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    with outage():
        harness.end(run)
        assert harness.process.runs.all() == []
        assert harness.process.finisher.unwritten() == {run.claim.id}
    harness.until(run.claim.id, "succeeded")
    wait_until(lambda: harness.process.finisher.unwritten() == set(), what="no end to wait")


def test_check_runs_once_an_interval(harness: WorkerHarness) -> None:
    job_id = claim_unheld(harness)
    with later():
        check(harness)
        harness.process.held_check.run(harness.process.id)  # within INTERVAL_S
        assert INTERVAL_S > 1
        assert harness.state(job_id) == "running"
