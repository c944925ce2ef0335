"""Ends in batches: written, then acked; what cannot be written waits, and delays no other end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import ConfigError, InvalidInput, Snooze, Stale, Unavailable
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.ledger import commands, timers, workers
from app.jobs.models import JobRow, WorkerRow
from app.jobs.relay.relay import Relay
from app.jobs.worker.finisher import MAX_WAITING_ENDS
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Chore, Outage, WorkerHarness

MakeHarness = Callable[..., WorkerHarness]
on_postgres = pytest.mark.parametrize("spine_env", ["postgresql"], indirect=True)


def _write_worker(session: Session, row: JobRow) -> None:
    """An on_end that writes: one row whose id is the job's."""
    workers.register(session, row.id, [], 0, row.state)


def _refuse(session: Session, row: JobRow) -> None:
    _write_worker(session, row)
    session.flush()
    if row.state == "succeeded":
        raise AssertionError("not this one")


def _unreachable(session: Session, row: JobRow) -> None:
    if row.state == "succeeded":
        raise Unavailable("the other side does not answer", code="mail_unavailable")


def _unset(session: Session, row: JobRow) -> None:
    if row.state == "succeeded":
        raise ConfigError("MAIL_HOST is not set")


class Unreachable(Job, kind="tests.unreachable", on_end=_unreachable, max_tries=1):
    """Its end asks a service that is away."""


class Unset(Job, kind="tests.unset", on_end=_unset, max_tries=1):
    """Its end misses a setting."""


def _stuck(session: Session, row: JobRow) -> None:
    _write_worker(session, row)
    session.flush()
    raise ZeroDivisionError


class Stuck(Job, kind="tests.stuck", on_end=_stuck):
    """Its end always fails."""


class Counted(Job, kind="tests.counted", on_end=_write_worker):
    """Its end writes a row."""


class Refused(Job, kind="tests.refused", on_end=_refuse, max_tries=2):
    """Its good end is refused."""


def _state_seen_by_on_end(harness: WorkerHarness, job_id: str) -> str | None:
    row = harness.ledger.db.read(lambda session: session.get(WorkerRow, job_id))
    return None if row is None else row.health_url


@pytest.mark.parametrize(
    ("error", "state", "outcome"),
    [(None, "succeeded", "succeeded"), (InvalidInput("no"), "failed", "failed"), (Unavailable("x"), "retrying", None)],
)
def test_an_end_calls_on_end_in_its_own_transaction(
    make_harness: MakeHarness, error: Exception | None, state: str, outcome: str | None
) -> None:
    harness = make_harness(Counted.kind)
    (job_id,) = harness.enqueue(Counted())
    (run,) = harness.take()
    harness.begin(run)
    harness.end(run, error)
    harness.until(job_id, state)
    assert _state_seen_by_on_end(harness, job_id) == outcome


def test_on_end_is_called_after_a_cancel_before_the_start_and_a_worker_death(make_harness: MakeHarness) -> None:
    harness = make_harness(Counted.kind)
    cancelled, died = harness.enqueue(Counted(), Counted())
    harness.ledger.db.transaction(commands.cancel, "default", cancelled)
    (run,) = harness.take()
    assert run.claim.id == died
    harness.ledger.db.transaction(commands.cancel, "default", died)
    harness.ledger.db.transaction(workers.mark_dead, harness.process.id, "killed")
    assert (_state_seen_by_on_end(harness, cancelled), _state_seen_by_on_end(harness, died)) == (
        "cancelled",
        "cancelled",
    )


def test_failing_on_end_refuses_its_end_and_blocks_no_other(make_harness: MakeHarness) -> None:
    """Tried again like any failure, with none of its writes; at last failed, and lines so."""
    harness, relay = make_harness(Refused.kind, Chore.kind), Relay()
    refused, *others = harness.enqueue(Refused(), Chore(), Chore())
    for run in harness.take(3):
        harness.begin(run)
        harness.end(run)
    for job_id in others:
        harness.until(job_id, "succeeded")
    row = harness.until(refused, "retrying", "queued")
    assert (row.error_type, row.error_code, row.tries) == ("EndRefused", "end_refused", 1)
    assert _state_seen_by_on_end(harness, refused) is None

    def again() -> bool:
        relay.tick()
        return harness.state(refused) == "queued" and bool(harness.window())

    wait_until(again, what="the second try")
    (run,) = harness.take()
    harness.begin(run)
    harness.end(run)
    row = harness.until(refused, "failed")
    assert (row.error_code, row.tries, row.result) == ("end_refused", 2, None)
    assert _state_seen_by_on_end(harness, refused) == "failed"
    harness.until_acked()


@pytest.mark.parametrize("job", [Unreachable(), Unset()])
def test_error_raised_by_on_end_is_not_a_database_outage(make_harness: MakeHarness, job: Job) -> None:
    """Or everybody's ends would wait for it."""
    harness = make_harness(job.kind, Chore.kind)
    refused, other = harness.enqueue(job, Chore())
    for run in harness.take(2):
        harness.begin(run)
        harness.end(run)
    harness.until(other, "succeeded")
    assert harness.until(refused, "failed").error_code == "end_refused"


def test_failing_on_end_does_not_keep_jobs_of_a_dead_worker(make_harness: MakeHarness) -> None:
    """Its own job ends, the others are free, whatever it raises, and so it is with what expires."""
    harness, now = make_harness(Stuck.kind), clock.now()
    running = {"state": "running", "fence": 1, "worker_id": harness.process.id, "started_at": now}
    stuck = harness.ledger.put(kind=Stuck.kind, cancel_requested_at=now, **running)
    other = harness.ledger.put(**running)
    expired, expired_too = harness.ledger.put(kind=Stuck.kind, expires_at=now), harness.ledger.put(expires_at=now)
    harness.ledger.db.transaction(workers.mark_dead, harness.process.id, "killed")
    assert (harness.state(stuck), harness.state(other)) == ("cancelled", "queued")
    harness.ledger.db.transaction(timers.expire, 10)
    assert (harness.state(expired), harness.state(expired_too)) == ("failed", "failed")
    assert _state_seen_by_on_end(harness, stuck) is None


@on_postgres
def test_an_end_that_could_not_be_written_is_not_acked_and_written_later(
    harness: WorkerHarness, outage: Outage
) -> None:
    ids = harness.enqueue(Chore(), Chore())
    runs = harness.take(2)
    taken = harness.unacked()
    assert len(taken) == 2
    with outage():
        for run in runs:
            harness.begin(run)
            harness.end(run)
        assert not harness.process.finisher.drain(0.5)
        assert sorted(harness.unacked()) == sorted(taken)
    for job_id in ids:
        harness.until(job_id, "succeeded")
    harness.until_acked()


@on_postgres
def test_worker_with_a_thousand_unwritten_ends_claims_no_more(make_harness: MakeHarness, outage: Outage) -> None:
    harness = make_harness(threads=MAX_WAITING_ENDS)
    ids = harness.ledger.put_many(MAX_WAITING_ENDS, admitted_at=clock.now())
    harness.push(ids)
    runs = harness.take(MAX_WAITING_ENDS)
    with outage():
        for run in runs:
            harness.end(run)
        wait_until(lambda: harness.process.finisher.is_full, what="a thousand ends to wait")
        late = uuid7()
        harness.push([late])
        assert harness.process.fetcher.fetch() == []
        assert harness.window() == [f"{late}:0"]
    for job_id in (ids[0], ids[-1]):
        harness.until(job_id, "succeeded")
    wait_until(lambda: not harness.process.finisher.is_full, what="the ends to be written")


def test_end_of_a_lost_claim_is_acked_and_not_written(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    harness.ledger.db.transaction(workers.mark_dead, harness.process.id, "no beat")
    before = harness.ledger.row(job_id)
    harness.end(run, Stale("somebody else's"))
    harness.until_acked()
    assert harness.ledger.row(job_id).state == before.state == "queued"
    assert [attempt.outcome for attempt in harness.ledger.attempts(job_id)] == ["died"]


def test_worker_unaware_of_its_lost_claim_writes_nothing(harness: WorkerHarness) -> None:
    """The fence has not moved yet, but the job is not running any more."""
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    harness.ledger.db.transaction(workers.mark_dead, harness.process.id, "no beat")
    harness.end(run)
    harness.until_acked()
    assert harness.state(job_id) == "queued"
    assert [attempt.outcome for attempt in harness.ledger.attempts(job_id)] == ["died"]


def test_start_of_a_run_is_recorded(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    assert run.started_at is not None
    harness.process.finisher.mark_started(run.claim, run.started_at)
    wait_until(lambda: harness.ledger.row(job_id).started_at, what="the start on record")
    harness.process.finisher.snapshot(run.claim, {"percent": 10.0, "seq": 3})
    wait_until(lambda: harness.ledger.row(job_id).progress == {"percent": 10.0, "seq": 3}, what="the snapshot")
    harness.end(run)
    row = harness.until(job_id, "succeeded")
    assert row.started_at == harness.ledger.attempts(job_id)[0].started_at


def test_cancel_request_ends_a_job_that_would_be_retried(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    harness.ledger.db.transaction(commands.cancel, "default", job_id)
    harness.end(run, Unavailable("not now"))
    assert harness.until(job_id, "cancelled", "retrying").state == "cancelled"


@pytest.mark.parametrize(
    "text", ["a\x00b", "lone \ud800 surrogate", "\udcff", "quoted \\u0000 stays", "emoji 🎉", "x" * 100_000]
)
def test_any_text_of_a_job_can_be_written_at_its_end(harness: WorkerHarness, text: str) -> None:
    """In the error, the result, the progress: characters that a database cannot store are left out."""
    broken, fine = harness.enqueue(Chore(), Chore())
    runs = {run.claim.id: run for run in harness.take(2)}
    for run in runs.values():
        harness.begin(run)
        assert run.progress is not None
        run.progress.report(1, 2, stage="first", unit=text[:20], message=text)
    harness.end(runs[broken], ValueError(text))
    runs[fine].result = {"said": text[:60_000], "of": [text[:20]], text[:20]: 1}
    harness.end(runs[fine])
    row = harness.until(broken, "retrying")
    assert row.error_type == "ValueError"
    stored = text.encode("utf-8", "replace").decode().replace("\x00", "").replace("?", "")
    assert (row.error_message or "").replace("\ufffd", "").replace("?", "") == stored[:4000]
    row = harness.until(fine, "succeeded")
    assert row.error_code is None
    assert row.result is not None
    if text.isprintable() and len(text) < 1000:
        lines: Any = row.result["said"]
        assert lines == text


def test_consecutive_snoozes_are_one_attempt_with_a_count(harness: WorkerHarness) -> None:
    (job_id,) = harness.enqueue(Chore())
    errors = [Snooze(0), Snooze(0), Snooze(0), Unavailable("away", retry_after_s=0), Snooze(0), Snooze(0), None]
    for error in errors:
        (run,) = harness.take()
        harness.begin(run)
        harness.end(run, error)
        harness.until(job_id, "retrying", "succeeded")
        Relay().tick()
    attempts = harness.ledger.attempts(job_id)
    assert [(attempt.outcome, attempt.repeats) for attempt in attempts] == [
        ("snoozed", 3),
        ("retrying", 1),
        ("snoozed", 2),
        ("succeeded", 1),
    ]
    assert [attempt.fence for attempt in attempts] == [3, 4, 6, 7]
    times = [time for attempt in attempts for time in (attempt.started_at, attempt.finished_at) if time is not None]
    assert (len(times), times) == (8, sorted(times))
    assert harness.ledger.row(job_id).tries == 1
