"""Pauses and caps: a limited job does not start, keeps its place, and starts when the limit is lifted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import database
from app.core.errors import InvalidInput, Snooze
from app.core.ids import uuid7
from app.jobs.admission import limits
from app.jobs.admission.limits import Limit, Scope
from app.jobs.definition import Job, caps
from app.jobs.ledger import commands, limit_commands, limited_claims
from app.jobs.ledger.ends import finish
from app.jobs.relay.relay import Relay
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import WORKER, Chore, Ledger, WorkerHarness, end_of

SCOPES: list[tuple[Scope, str]] = [("queue", "default"), ("kind", Chore.kind), ("tenant", "default")]
each_scope = pytest.mark.parametrize(("scope", "name"), SCOPES)
CAP = 3


class Rare(Job, kind="tests.rare", running_cap=2):
    """Its definition allows two at a time."""


def pause(scope: Scope, name: str) -> Limit:
    return database().transaction(limit_commands.pause, scope, name, by="a person", reason="repairs")


def resume(scope: Scope, name: str) -> Limit:
    return database().transaction(limit_commands.resume, scope, name)


def states(ledger: Ledger, ids: list[str]) -> set[str]:
    return {ledger.row(job_id).state for job_id in ids}


# Pauses


@each_scope
def test_nothing_starts_during_a_pause_and_everything_after(harness: WorkerHarness, scope: Scope, name: str) -> None:
    """A pause withdraws admitted jobs, admits no new ones, and refuses claims of ids still in Redis."""
    (before,) = harness.enqueue(Chore())
    assert harness.ledger.row(before).admitted_at is not None
    pause(scope, name)
    assert harness.ledger.row(before).admitted_at is None
    (after,) = harness.enqueue(Chore())
    Relay().tick()
    assert harness.ledger.row(after).admitted_at is None
    harness.push([before, after])
    assert harness.process.fetcher.fetch() == []
    harness.until_acked()
    assert (harness.state(before), harness.state(after)) == ("queued", "queued")

    assert not resume(scope, name).paused
    Relay().tick()
    assert {run.claim.id for run in harness.take(2)} == {before, after}


@each_scope
def test_pause_survives_a_flush_of_redis(harness: WorkerHarness, scope: Scope, name: str) -> None:
    pause(scope, name)
    (job_id,) = harness.enqueue(Chore())
    harness.redis.flushall()
    relay = Relay()
    relay.tick()
    assert harness.window() == []
    resume(scope, name)
    relay.tick()
    assert [run.claim.id for run in harness.take()] == [job_id]


def test_pause_of_another_scope_has_no_effect(harness: WorkerHarness) -> None:
    pause("tenant", "another")
    pause("queue", "bulk")
    pause("kind", "tests.other")
    (job_id,) = harness.enqueue(Chore())
    (run,) = harness.take()
    assert run.claim.id == job_id
    assert not run.claim.capped


def test_running_job_ends_during_a_pause(harness: WorkerHarness) -> None:
    harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    pause("queue", "default")
    harness.end(run)
    assert harness.until(run.claim.id, "succeeded").admitted_at is None


def test_manual_retry_waits_during_a_pause(harness: WorkerHarness) -> None:
    job_id = harness.ledger.put(state="failed")
    pause("kind", Chore.kind)
    row = database().transaction(commands.retry, "default", job_id)
    assert (row.state, row.admitted_at) == ("queued", None)


def test_second_pause_keeps_the_time_of_the_first(ledger_of: Ledger) -> None:
    first = ledger_of.db.transaction(limit_commands.pause, "queue", "bulk", by="one", reason="repairs")
    second = ledger_of.db.transaction(limit_commands.pause, "queue", "bulk", by="two", reason=None)
    assert (second.paused_at, second.paused_by, second.reason) == (first.paused_at, "two", None)
    opened = ledger_of.db.transaction(limit_commands.resume, "queue", "bulk")
    assert opened == Limit("queue", "bulk")


def test_rolled_back_pause_has_no_effect(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(admitted_at=clock.now())

    def refused(session: Session) -> None:
        limit_commands.pause(session, "queue", "default")
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        ledger_of.db.transaction(refused)
    assert ledger_of.row(job_id).admitted_at is not None
    assert [c.id for c in ledger_of.db.transaction(limited_claims.claim, [job_id], WORKER)] == [job_id]


# Caps


@each_scope
def test_concurrent_workers_never_exceed_a_cap(ledger_of: Ledger, scope: Scope, name: str) -> None:
    """Four threads claim overlapping batches, end their claims, and count running jobs at every step."""
    db, ids = ledger_of.db, ledger_of.put_many(30)
    db.transaction(limit_commands.set_limits, scope, name, running_cap=CAP)
    workers = [ledger_of.worker(uuid7()) for _ in range(4)]
    counts: list[int] = []
    done: set[str] = set()
    stop = threading.Event()

    def work(place: int) -> None:
        try:
            claim_all(place)
        finally:
            stop.set()  # also after an error, since its claims would stay open

    def claim_all(place: int) -> None:
        while len(done) < len(ids) and not stop.is_set():
            batch = [job_id for job_id in ids if job_id not in done][place : place + 20] or ids[:20]
            claims = db.transaction(limited_claims.claim, batch, workers[place])
            counts.append(db.read(limits.count_running, scope, name))
            assert all(claim.capped for claim in claims)
            ends = [end_of(claim.id, claim.fence, "succeeded") for claim in claims]
            if ends:
                db.transaction(finish, ends)
            done.update(claim.id for claim in claims)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert max(counts) <= CAP
    assert states(ledger_of, ids) == {"succeeded"}


def test_jobs_over_a_cap_leave_the_window_and_the_rest_of_the_batch_runs(ledger_of: Ledger) -> None:
    db = ledger_of.db
    db.transaction(limit_commands.set_limits, "tenant", "limited", running_cap=CAP)
    limited = ledger_of.put_many(10, tenant="limited", admitted_at=clock.now())
    others = ledger_of.put_many(10, admitted_at=clock.now())
    mixed = [job_id for pair in zip(limited, others, strict=True) for job_id in pair]
    claims = db.transaction(limited_claims.claim, mixed, WORKER)
    assert {claim.id for claim in claims} == {*others, *limited[:CAP]}
    assert [claim.id for claim in claims] == [job_id for job_id in mixed if job_id in {claim.id for claim in claims}]
    assert [ledger_of.row(job_id).admitted_at for job_id in limited[CAP:]] == [None] * (10 - CAP)


def test_two_caps_both_hold(ledger_of: Ledger) -> None:
    db = ledger_of.db
    db.transaction(limit_commands.set_limits, "tenant", "a", running_cap=2)
    db.transaction(limit_commands.set_limits, "kind", Chore.kind, running_cap=3)
    ids = ledger_of.put_many(5, tenant="a") + ledger_of.put_many(5, tenant="b")
    claims = db.transaction(limited_claims.claim, ids, WORKER)
    assert sorted(claim.tenant for claim in claims) == ["a", "a", "b"]


def test_end_of_a_capped_job_admits_the_next(harness: WorkerHarness) -> None:
    database().transaction(limit_commands.set_limits, "kind", Chore.kind, running_cap=1)
    ids, relay, seen = harness.enqueue(Chore(), Chore(), Chore()), Relay(), []
    for _ in ids:
        relay.tick()
        (run,) = harness.take()
        harness.begin(run)
        assert run.claim.capped
        harness.end(run)
        harness.until(run.claim.id, "succeeded")
        seen.append(run.claim.id)
    assert seen == ids


def test_operator_cap_overrides_the_cap_of_the_definition(ledger_of: Ledger) -> None:
    db = ledger_of.db
    assert caps()[Rare.kind] == 2
    db.transaction(limit_commands.declare, {Rare.kind: 2, Chore.kind: None})
    assert db.read(limits.find, "kind", Rare.kind).cap == 2
    assert not db.read(limits.is_known, "kind", Chore.kind)
    db.transaction(limit_commands.set_limits, "kind", Rare.kind, running_cap=5)
    assert db.read(limits.find, "kind", Rare.kind).cap == 5
    db.transaction(limit_commands.set_limits, "kind", Rare.kind, running_cap=None)
    db.transaction(limit_commands.declare, {Rare.kind: None})
    assert db.read(limits.find, "kind", Rare.kind).is_unlimited


@pytest.mark.parametrize("values", [{"running_cap": 0}, {"running_cap": -1}, {"running_cap": 10**9}, {"weight": 0}])
def test_invalid_limits_are_refused(ledger_of: Ledger, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        ledger_of.db.transaction(limit_commands.set_limits, "tenant", "a", **({"running_cap": None} | values))


def test_blocking_names_pauses_first_and_then_full_caps(ledger_of: Ledger) -> None:
    """A cap with room does not block."""
    db = ledger_of.db
    row = ledger_of.row(ledger_of.put())
    assert db.read(limits.blocking, row) == []
    db.transaction(limit_commands.set_limits, "kind", Chore.kind, running_cap=1)
    assert db.read(limits.blocking, row) == []
    ledger_of.put(state="running", worker_id=WORKER, fence=1)
    db.transaction(limit_commands.pause, "tenant", "default", reason="unpaid")
    paused, full = db.read(limits.blocking, row)
    assert (paused.limit.scope, paused.limit.reason, paused.running) == ("tenant", "unpaid", None)
    assert (full.limit.scope, full.limit.cap, full.running) == ("kind", 1, 1)


# Snooze


def test_snoozed_job_runs_later_and_uses_no_try(harness: WorkerHarness) -> None:
    """A job may snooze more often than it has tries; its row has no error."""
    (job_id,) = harness.enqueue(Chore())
    relay = Relay()
    for _ in range(6):
        relay.tick()
        (run,) = harness.take()
        harness.begin(run)
        harness.end(run, Snooze(0.01, "not yet"))
        row = harness.until(job_id, "retrying")
        assert (row.tries, row.error_type) == (0, None)
        wait_until(lambda: clock.now() > harness.ledger.row(job_id).due_at, what="the job to be due")
    assert [(attempt.outcome, attempt.repeats) for attempt in harness.ledger.attempts(job_id)] == [("snoozed", 6)]


def test_cancel_wins_over_a_snooze(harness: WorkerHarness) -> None:
    harness.enqueue(Chore())
    (run,) = harness.take()
    harness.begin(run)
    database().transaction(commands.cancel, "default", run.claim.id)
    harness.end(run, Snooze(60))
    harness.until(run.claim.id, "cancelled")
