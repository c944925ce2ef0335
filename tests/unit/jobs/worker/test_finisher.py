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
from tests.unit.jobs.conftest import Chore, Desk, Outage

Desks = Callable[..., Desk]
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


def _told(desk: Desk, job_id: str) -> str | None:
    row = desk.ledger.db.read(lambda session: session.get(WorkerRow, job_id))
    return None if row is None else row.health_url


@pytest.mark.parametrize(
    ("error", "state", "outcome"),
    [(None, "succeeded", "succeeded"), (InvalidInput("no"), "failed", "failed"), (Unavailable("x"), "retrying", None)],
)
def test_an_end_calls_on_end_in_its_own_transaction(
    desks: Desks, error: Exception | None, state: str, outcome: str | None
) -> None:
    desk = desks(Counted.kind)
    (job_id,) = desk.enqueue(Counted())
    (run,) = desk.take()
    desk.begin(run)
    desk.end(run, error)
    desk.until(job_id, state)
    assert _told(desk, job_id) == outcome


def test_a_cancel_before_the_start_and_a_death_call_on_end_too(desks: Desks) -> None:
    desk = desks(Counted.kind)
    cancelled, died = desk.enqueue(Counted(), Counted())
    desk.ledger.db.transaction(commands.cancel, "default", cancelled)
    (run,) = desk.take()
    assert run.claim.id == died
    desk.ledger.db.transaction(commands.cancel, "default", died)
    desk.ledger.db.transaction(workers.mark_dead, desk.process.id, "killed")
    assert (_told(desk, cancelled), _told(desk, died)) == ("cancelled", "cancelled")


def test_an_on_end_that_fails_is_an_end_refused_and_blocks_nobody(desks: Desks) -> None:
    """Tried again like any failure, with none of its writes; at last failed, and lines so."""
    desk, relay = desks(Refused.kind, Chore.kind), Relay()
    refused, *others = desk.enqueue(Refused(), Chore(), Chore())
    for run in desk.take(3):
        desk.begin(run)
        desk.end(run)
    for job_id in others:
        desk.until(job_id, "succeeded")
    row = desk.until(refused, "retrying", "queued")
    assert (row.error_type, row.error_code, row.tries) == ("EndRefused", "end_refused", 1)
    assert _told(desk, refused) is None

    def again() -> bool:
        relay.tick()
        return desk.state(refused) == "queued" and bool(desk.window())

    wait_until(again, what="the second try")
    (run,) = desk.take()
    desk.begin(run)
    desk.end(run)
    row = desk.until(refused, "failed")
    assert (row.error_code, row.tries, row.result) == ("end_refused", 2, None)
    assert _told(desk, refused) == "failed"
    desk.until_acked()


@pytest.mark.parametrize("job", [Unreachable(), Unset()])
def test_what_an_on_end_misses_is_not_taken_for_sql_that_is_away(desks: Desks, job: Job) -> None:
    """Or everybody's ends would wait for it."""
    desk = desks(job.kind, Chore.kind)
    refused, other = desk.enqueue(job, Chore())
    for run in desk.take(2):
        desk.begin(run)
        desk.end(run)
    desk.until(other, "succeeded")
    assert desk.until(refused, "failed").error_code == "end_refused"


def test_an_on_end_that_fails_keeps_no_job_of_a_dead_worker(desks: Desks) -> None:
    """Its own job ends, the others are free, whatever it raises, and so it is with what expires."""
    desk, now = desks(Stuck.kind), clock.now()
    running = {"state": "running", "fence": 1, "worker_id": desk.process.id, "started_at": now}
    stuck = desk.ledger.put(kind=Stuck.kind, cancel_requested_at=now, **running)
    other = desk.ledger.put(**running)
    expired, expired_too = desk.ledger.put(kind=Stuck.kind, expires_at=now), desk.ledger.put(expires_at=now)
    desk.ledger.db.transaction(workers.mark_dead, desk.process.id, "killed")
    assert (desk.state(stuck), desk.state(other)) == ("cancelled", "queued")
    desk.ledger.db.transaction(timers.expire, 10)
    assert (desk.state(expired), desk.state(expired_too)) == ("failed", "failed")
    assert _told(desk, stuck) is None


@on_postgres
def test_an_end_that_could_not_be_written_is_not_acked_and_written_later(desk: Desk, outage: Outage) -> None:
    ids = desk.enqueue(Chore(), Chore())
    runs = desk.take(2)
    taken = desk.unacked()
    assert len(taken) == 2
    with outage():
        for run in runs:
            desk.begin(run)
            desk.end(run)
        assert not desk.process.finisher.drain(0.5)
        assert sorted(desk.unacked()) == sorted(taken)
    for job_id in ids:
        desk.until(job_id, "succeeded")
    desk.until_acked()


@on_postgres
def test_with_a_thousand_ends_waiting_for_sql_nothing_more_is_claimed(desks: Desks, outage: Outage) -> None:
    desk = desks(threads=MAX_WAITING_ENDS)
    ids = desk.ledger.put_many(MAX_WAITING_ENDS, admitted_at=clock.now())
    desk.push(ids)
    runs = desk.take(MAX_WAITING_ENDS)
    with outage():
        for run in runs:
            desk.end(run)
        wait_until(lambda: desk.process.finisher.is_full, what="a thousand ends to wait")
        late = uuid7()
        desk.push([late])
        assert desk.process.fetcher.fetch() == []
        assert desk.window() == [f"{late}:0"]
    for job_id in (ids[0], ids[-1]):
        desk.until(job_id, "succeeded")
    wait_until(lambda: not desk.process.finisher.is_full, what="the ends to be written")


def test_what_was_lost_to_another_worker_is_acked_and_not_written(desk: Desk) -> None:
    (job_id,) = desk.enqueue(Chore())
    (run,) = desk.take()
    desk.begin(run)
    desk.ledger.db.transaction(workers.mark_dead, desk.process.id, "no beat")
    before = desk.ledger.row(job_id)
    desk.end(run, Stale("somebody else's"))
    desk.until_acked()
    assert desk.ledger.row(job_id).state == before.state == "queued"
    assert [attempt.outcome for attempt in desk.ledger.attempts(job_id)] == ["died"]


def test_a_worker_that_does_not_know_of_its_loss_writes_nothing_either(desk: Desk) -> None:
    """The fence has not moved yet, but the job is not running any more."""
    (job_id,) = desk.enqueue(Chore())
    (run,) = desk.take()
    desk.begin(run)
    desk.ledger.db.transaction(workers.mark_dead, desk.process.id, "no beat")
    desk.end(run)
    desk.until_acked()
    assert desk.state(job_id) == "queued"
    assert [attempt.outcome for attempt in desk.ledger.attempts(job_id)] == ["died"]


def test_a_start_that_goes_on_is_put_on_record(desk: Desk) -> None:
    (job_id,) = desk.enqueue(Chore())
    (run,) = desk.take()
    desk.begin(run)
    assert run.started_at is not None
    desk.process.finisher.mark_started(run.claim, run.started_at)
    wait_until(lambda: desk.ledger.row(job_id).started_at, what="the start on record")
    desk.process.finisher.snapshot(run.claim, {"percent": 10.0, "seq": 3})
    wait_until(lambda: desk.ledger.row(job_id).progress == {"percent": 10.0, "seq": 3}, what="the snapshot")
    desk.end(run)
    row = desk.until(job_id, "succeeded")
    assert row.started_at == desk.ledger.attempts(job_id)[0].started_at


def test_a_cancel_that_was_asked_for_ends_a_job_that_would_be_tried_again(desk: Desk) -> None:
    (job_id,) = desk.enqueue(Chore())
    (run,) = desk.take()
    desk.begin(run)
    desk.ledger.db.transaction(commands.cancel, "default", job_id)
    desk.end(run, Unavailable("not now"))
    assert desk.until(job_id, "cancelled", "retrying").state == "cancelled"


@pytest.mark.parametrize(
    "text", ["a\x00b", "lone \ud800 surrogate", "\udcff", "quoted \\u0000 stays", "emoji 🎉", "x" * 100_000]
)
def test_no_text_of_a_job_keeps_its_end_from_being_written(desk: Desk, text: str) -> None:
    """In the error, the result, the progress: characters that a database cannot store are left out."""
    broken, fine = desk.enqueue(Chore(), Chore())
    runs = {run.claim.id: run for run in desk.take(2)}
    for run in runs.values():
        desk.begin(run)
        assert run.progress is not None
        run.progress.report(1, 2, stage="first", unit=text[:20], message=text)
    desk.end(runs[broken], ValueError(text))
    runs[fine].result = {"said": text[:60_000], "of": [text[:20]], text[:20]: 1}
    desk.end(runs[fine])
    row = desk.until(broken, "retrying")
    assert row.error_type == "ValueError"
    stored = text.encode("utf-8", "replace").decode().replace("\x00", "").replace("?", "")
    assert (row.error_message or "").replace("\ufffd", "").replace("?", "") == stored[:4000]
    row = desk.until(fine, "succeeded")
    assert row.error_code is None
    assert row.result is not None
    if text.isprintable() and len(text) < 1000:
        lines: Any = row.result["said"]
        assert lines == text


def test_snoozes_in_a_row_are_one_attempt_with_their_number(desk: Desk) -> None:
    (job_id,) = desk.enqueue(Chore())
    errors = [Snooze(0), Snooze(0), Snooze(0), Unavailable("away", retry_after_s=0), Snooze(0), Snooze(0), None]
    for error in errors:
        (run,) = desk.take()
        desk.begin(run)
        desk.end(run, error)
        desk.until(job_id, "retrying", "succeeded")
        Relay().tick()
    attempts = desk.ledger.attempts(job_id)
    assert [(attempt.outcome, attempt.repeats) for attempt in attempts] == [
        ("snoozed", 3),
        ("retrying", 1),
        ("snoozed", 2),
        ("succeeded", 1),
    ]
    assert [attempt.fence for attempt in attempts] == [3, 4, 6, 7]
    times = [time for attempt in attempts for time in (attempt.started_at, attempt.finished_at) if time is not None]
    assert (len(times), times) == (8, sorted(times))
    assert desk.ledger.row(job_id).tries == 1
