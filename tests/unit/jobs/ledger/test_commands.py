"""Cancel and retry commands, with their notices to the running worker and to subscribers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core import redis
from app.core.errors import Cancelled, Conflict, InvalidInput, NotFound
from app.core.ids import uuid7
from app.jobs.ledger import commands
from app.jobs.worker.middleware.cancellation import cancel_run as cancel_run
from tests.support.databases import SettingsEnv
from tests.support.services import RedisServer
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, WorkerHarness


def _events(harness: WorkerHarness, job_id: str) -> list[tuple[str, str]]:
    entries: Any = harness.redis.xrange(redis.TENANT_EVENTS.format("default"))
    events = [json.loads(fields["e"]) for _, fields in entries]
    return [(event["event"], event["state"]) for event in events if event["job_id"] == job_id]


def test_cancel_ends_a_waiting_job_at_once(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    harness.ledger.db.transaction(commands.cancel, "default", job_id)
    row = harness.ledger.row(job_id)
    assert (row.state, row.finished_at is not None) == ("cancelled", True)
    assert harness.process.fetcher.fetch() == []
    assert _events(harness, job_id) == [("end", "cancelled")]


def test_cancel_notifies_a_running_job_which_ends_as_cancelled(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    stopped: list[Exception] = []
    run.attach(stopped.append)
    with redis.subscription() as pubsub:
        pubsub.subscribe(redis.CANCEL_CHANNEL)
        pubsub.get_message(timeout=1)
        harness.ledger.db.transaction(commands.cancel, "default", job_id)
        harness.ledger.db.transaction(commands.cancel, "default", job_id)
        message: Any = wait_until(lambda: pubsub.get_message(timeout=0.1), what="the cancel notice")
    assert message["data"] == job_id
    assert harness.state(job_id) == "running"
    cancel_run(harness.process, job_id)
    assert [type(reason) for reason in stopped] == [Cancelled]
    harness.end(run, run.reason)
    row = harness.until(job_id, "cancelled")
    assert (row.tries, row.finished_at is not None) == (0, True)
    wait_until(lambda: _events(harness, job_id)[-1:] == [("end", "cancelled")], what="the end event")


def test_cancel_of_an_ended_or_unknown_job_changes_nothing(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    harness.end(run)
    before = harness.until(job_id, "succeeded")
    after = harness.ledger.db.transaction(commands.cancel, "default", job_id)
    assert (after.state, after.cancel_requested_at) == (before.state, None)
    for tenant, unknown in (("default", uuid7()), ("another", job_id), ("default", "no id"), ("default", "'; --")):
        with pytest.raises(NotFound):
            harness.ledger.db.transaction(commands.cancel, tenant, unknown)
        with pytest.raises(NotFound):
            harness.ledger.db.transaction(commands.retry, tenant, unknown)


def test_retried_job_runs_at_once_with_all_its_tries(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    harness.end(run, InvalidInput("never"))
    harness.until(job_id, "failed")
    harness.ledger.db.transaction(commands.retry, "default", job_id)
    (again,) = harness.take()
    assert (again.claim.id, again.claim.fence, again.claim.tries) == (job_id, 2, 0)
    assert ("state", "queued") in _events(harness, job_id)
    harness.begin(again)
    harness.end(again)
    row = harness.until(job_id, "succeeded")
    assert row.error_type is None
    assert [attempt.outcome for attempt in harness.ledger.attempts(job_id)] == ["failed", "succeeded"]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "retrying", "scheduled", "waiting"])
def test_retry_of_a_job_that_is_not_failed_or_cancelled_is_a_conflict(harness: WorkerHarness, state: str) -> None:
    job_id = harness.ledger.put(state=state)
    with pytest.raises(Conflict, match=f"is {state}"):
        harness.ledger.db.transaction(commands.retry, "default", job_id)


def test_cancel_and_retry_work_without_redis(redis_server: RedisServer, spine_env: SettingsEnv) -> None:
    spine_env(redis_url=redis_server.url)
    harness = WorkerHarness([Chore.kind])
    try:
        redis_server.stop()
        waiting, failed = harness.ledger.put(), harness.ledger.put(state="failed")
        running = harness.ledger.put(state="running", fence=1, worker_id=harness.process.id)
        harness.ledger.db.transaction(commands.cancel, "default", waiting)
        harness.ledger.db.transaction(commands.cancel, "default", running)
        harness.ledger.db.transaction(commands.retry, "default", failed)
        assert (harness.state(waiting), harness.state(failed)) == ("cancelled", "queued")
        assert harness.ledger.row(running).cancel_requested_at is not None
    finally:
        harness.close()
