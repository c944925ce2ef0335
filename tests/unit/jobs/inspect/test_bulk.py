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
def book(spine_env: SettingsEnv) -> Ledger:
    ledger = Ledger(database())
    ledger.worker()
    return ledger


def failed(book: Ledger, count: int = 1, **values: Any) -> list[str]:
    return book.put_many(count, **{**FAULT, "finished_at": clock.now(), **values})


def claim(book: Ledger, job: Bulk, job_id: str | None = None) -> Claim:
    job_id = job_id or book.put(kind=Bulk.kind, queue="bulk", payload=job.model_dump(mode="json"))
    (taken,) = book.db.transaction(claims.claim, [job_id], WORKER)
    return taken


def bulk_request(action: Any, **filters: Any) -> Bulk:
    return Bulk(action=action, wanted=check_filter(action, BulkFilter(**filters)), asked_at=clock.now())


def run(book: Ledger, job: Bulk) -> dict[str, Any]:
    progress = Progress(claim(book, job), ProgressPublisher(lambda claim, snapshot: None))
    return asyncio.run(bulk.run(job, progress))


def states(book: Ledger, ids: list[str]) -> set[str]:
    return {book.row(job_id).state for job_id in ids}


def test_failed_jobs_of_one_fault_are_retried_and_no_others(book: Ledger) -> None:
    mine = failed(book, BATCH + 20)
    others = failed(book, 2, fingerprint="cd") + failed(book, tenant="other") + failed(book, discarded_at=clock.now())
    job = bulk_request("retry", fingerprint="ab")
    assert book.db.read(bulk.preview, "default", job)["matched"] == len(mine)
    assert run(book, job) == {"action": "retry", "done": len(mine), "refused": 0}
    assert (states(book, mine), states(book, others)) == ({"queued"}, {"failed"})


def test_waiting_jobs_of_a_kind_are_cancelled_and_running_ones_requested_to(book: Ledger) -> None:
    waiting = [*book.put_many(3), book.put(state="scheduled"), book.put(state="retrying")]
    running = book.put(state="running", worker_id=WORKER, fence=1)
    done = book.put(state="succeeded")
    assert run(book, bulk_request("cancel", kind=Chore.kind))["done"] == 6
    assert (states(book, waiting), states(book, [running, done])) == ({"cancelled"}, {"running", "succeeded"})
    assert book.row(running).cancel_requested_at is not None


def test_dead_letters_are_discarded(book: Ledger) -> None:
    ids = failed(book, 3) + failed(book, fingerprint=None)
    assert run(book, bulk_request("discard", fingerprint="none"))["done"] == 1
    assert run(book, bulk_request("discard", states=["failed"]))["done"] == 3
    assert all(book.row(job_id).discarded_at for job_id in ids)


def test_jobs_that_fail_or_arrive_after_the_request_are_not_touched(book: Ledger) -> None:
    job = bulk_request("retry", states=["failed", "cancelled"])
    later = failed(book, 2, finished_at=clock.now() + timedelta(seconds=1))
    cancel = bulk_request("cancel", kind=Chore.kind)
    new = book.put(created_at=clock.now() + timedelta(seconds=1))
    assert (run(book, job)["done"], run(book, cancel)["done"]) == (0, 0)
    assert (states(book, later), states(book, [new])) == ({"failed"}, {"queued"})


def test_job_that_cannot_move_is_refused_and_the_others_move(book: Ledger) -> None:
    ids = failed(book, 3, unique_key="one house")
    assert run(book, bulk_request("retry", fingerprint="ab")) == {"action": "retry", "done": 1, "refused": 2}
    assert sorted(book.row(job_id).state for job_id in ids) == ["failed", "failed", "queued"]


def test_a_second_run_goes_on_behind_the_first_ones_last_batch(book: Ledger) -> None:
    """A worker dies in the midst: its changes are on record, and is neither done again nor counted twice."""
    ids = failed(book, 3 * BATCH)
    job = bulk_request("retry", fingerprint="ab")
    first = claim(book, job)
    assert book.db.transaction(bulk._step, first, job) == (BATCH, 0, True)
    book.db.transaction(ends.free, WORKER, "killed")
    with pytest.raises(Stale):
        book.db.transaction(bulk._step, first, job)
    again = failed(book, 1)  # one of the first batch has failed once more: not of this job's time
    second = claim(book, job, first.id)
    result = asyncio.run(bulk.run(job, Progress(second, ProgressPublisher(lambda claim, snapshot: None))))
    assert result == {"action": "retry", "done": 3 * BATCH, "refused": 0}
    assert (states(book, ids), states(book, again)) == ({"queued"}, {"failed"})


def test_cancelled_bulk_job_stops_between_batches(book: Ledger) -> None:
    failed(book, 2)
    job = bulk_request("retry", fingerprint="ab")
    taken = claim(book, job)
    book.db.transaction(commands.cancel, "default", taken.id)
    with pytest.raises(Cancelled):
        book.db.transaction(bulk._step, taken, job)


@pytest.mark.parametrize(
    ("action", "filters"),
    [("cancel", {}), ("retry", {"states": ["succeeded"]}), ("discard", {"states": ["cancelled"]}),
     ("cancel", {"states": ["failed"]}), ("retry", {"states": ["failed", "running"]})],
)  # fmt: skip
def test_filter_without_a_usable_condition_is_refused(action: Any, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="filter"):
        bulk_request(action, **filters)
