"""Many jobs at once: only what was meant, each once, and on from where a crash left it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.core import clock
from app.core.db import database
from app.core.errors import Cancelled, InvalidInput, Stale
from app.jobs.inspect import bulk
from app.jobs.inspect.bulk import BATCH, Bulk, BulkFilter, check_filter
from app.jobs.ledger import claims, commands, ends
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress, ProgressPublisher
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import WORKER, Chore, Ledger

FAULT = {"state": "failed", "error_type": "E", "error_code": "e", "fingerprint": "ab"}


@pytest.fixture
def ledger(spine_env: SettingsEnv) -> Ledger:
    ledger = Ledger(database())
    ledger.worker()
    return ledger


def failed(ledger: Ledger, count: int = 1, **values: Any) -> list[str]:
    return ledger.put_many(count, **{**FAULT, "finished_at": clock.now(), **values})


def claim(ledger: Ledger, job: Bulk, job_id: str | None = None) -> Claim:
    job_id = job_id or ledger.put(kind=Bulk.kind, queue="bulk", payload=job.model_dump(mode="json"))
    (taken,) = ledger.db.transaction(claims.claim, [job_id], WORKER)
    return taken


def bulk_request(action: Any, **filters: Any) -> Bulk:
    return Bulk(action=action, wanted=check_filter(action, BulkFilter(**filters)), asked_at=clock.now())


def run(ledger: Ledger, job: Bulk) -> dict[str, Any]:
    progress = Progress(claim(ledger, job), ProgressPublisher(lambda claim, snapshot: None))
    return asyncio.run(bulk.run(job, progress))


def states(ledger: Ledger, ids: list[str]) -> set[str]:
    return {ledger.row(job_id).state for job_id in ids}


def test_failed_jobs_of_one_fault_are_retried_and_no_others(ledger: Ledger) -> None:
    mine = failed(ledger, BATCH + 20)
    others = (
        failed(ledger, 2, fingerprint="cd") + failed(ledger, tenant="other") + failed(ledger, discarded_at=clock.now())
    )
    job = bulk_request("retry", fingerprint="ab")
    assert ledger.db.read(bulk.preview, "default", job)["matched"] == len(mine)
    assert run(ledger, job) == {"action": "retry", "done": len(mine), "refused": 0}
    assert (states(ledger, mine), states(ledger, others)) == ({"queued"}, {"failed"})


def test_waiting_jobs_of_a_kind_are_cancelled_and_running_ones_requested_to(ledger: Ledger) -> None:
    waiting = [*ledger.put_many(3), ledger.put(state="scheduled"), ledger.put(state="retrying")]
    running = ledger.put(state="running", worker_id=WORKER, fence=1)
    done = ledger.put(state="succeeded")
    assert run(ledger, bulk_request("cancel", kind=Chore.kind))["done"] == 6
    assert (states(ledger, waiting), states(ledger, [running, done])) == ({"cancelled"}, {"running", "succeeded"})
    assert ledger.row(running).cancel_requested_at is not None


def test_dead_letters_are_discarded(ledger: Ledger) -> None:
    ids = failed(ledger, 3) + failed(ledger, fingerprint=None)
    assert run(ledger, bulk_request("discard", fingerprint="none"))["done"] == 1
    assert run(ledger, bulk_request("discard", states=["failed"]))["done"] == 3
    assert all(ledger.row(job_id).discarded_at for job_id in ids)


def test_jobs_that_fail_or_arrive_after_the_request_are_not_touched(ledger: Ledger) -> None:
    job = bulk_request("retry", states=["failed", "cancelled"])
    later = failed(ledger, 2, finished_at=clock.now() + timedelta(seconds=1))
    cancel = bulk_request("cancel", kind=Chore.kind)
    new = ledger.put(created_at=clock.now() + timedelta(seconds=1))
    assert (run(ledger, job)["done"], run(ledger, cancel)["done"]) == (0, 0)
    assert (states(ledger, later), states(ledger, [new])) == ({"failed"}, {"queued"})


def test_job_that_cannot_move_is_refused_and_the_others_move(ledger: Ledger) -> None:
    ids = failed(ledger, 3, unique_key="one house")
    assert run(ledger, bulk_request("retry", fingerprint="ab")) == {"action": "retry", "done": 1, "refused": 2}
    assert sorted(ledger.row(job_id).state for job_id in ids) == ["failed", "failed", "queued"]


def test_a_second_run_goes_on_behind_the_first_ones_last_batch(ledger: Ledger) -> None:
    """A worker dies in the midst: its changes are on record, and is neither done again nor counted twice."""
    ids = failed(ledger, 3 * BATCH)
    job = bulk_request("retry", fingerprint="ab")
    first = claim(ledger, job)
    assert ledger.db.transaction(bulk._step, first, job) == (BATCH, 0, True)
    ledger.db.transaction(ends.free, WORKER, "killed")
    with pytest.raises(Stale):
        ledger.db.transaction(bulk._step, first, job)
    again = failed(ledger, 1)  # one of the first batch has failed once more: not of this job's time
    second = claim(ledger, job, first.id)
    result = asyncio.run(bulk.run(job, Progress(second, ProgressPublisher(lambda claim, snapshot: None))))
    assert result == {"action": "retry", "done": 3 * BATCH, "refused": 0}
    assert (states(ledger, ids), states(ledger, again)) == ({"queued"}, {"failed"})


def test_cancelled_bulk_job_stops_between_batches(ledger: Ledger) -> None:
    failed(ledger, 2)
    job = bulk_request("retry", fingerprint="ab")
    taken = claim(ledger, job)
    ledger.db.transaction(commands.cancel, "default", taken.id)
    with pytest.raises(Cancelled):
        ledger.db.transaction(bulk._step, taken, job)


@pytest.mark.parametrize(
    ("action", "filters"),
    [("cancel", {}), ("retry", {"states": ["succeeded"]}), ("discard", {"states": ["cancelled"]}),
     ("cancel", {"states": ["failed"]}), ("retry", {"states": ["failed", "running"]})],
)  # fmt: skip
def test_filter_without_a_usable_condition_is_refused(action: Any, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="filter"):
        bulk_request(action, **filters)
