"""Every function makes only the moves of the table, and the database refuses all others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import Conflict
from app.core.ids import uuid7
from app.jobs.child_rules import ALL, Wait
from app.jobs.ledger import admissions, claims, commands, timers, workers
from app.jobs.ledger.ends import finish, free
from app.jobs.models import JOB, JobRow
from app.jobs.relay import fairness
from app.jobs.states import ENDED, MOVES, NOT_STARTED, STATES, Outcome, State
from tests.unit.jobs.conftest import WORKER, Ledger, end_of

FENCE = 3
PAST, FUTURE = timedelta(hours=-1), timedelta(hours=1)
Act = Callable[[Session, str], object]


def _end(state: State, outcome: Outcome, *, fence: int = FENCE) -> Act:
    def act(session: Session, job_id: str) -> object:
        wait = Wait(ALL) if state == "waiting" else None
        return finish(session, [end_of(job_id, fence, state, outcome, tries=1, wait=wait)])

    return act


def _retry(session: Session, job_id: str) -> None:
    try:
        commands.retry(session, "default", job_id)
    except Conflict as refusal:
        assert refusal.code == "job_state"


# Each function, with the moves it may make.
ACTS: dict[str, tuple[Act, dict[State, State]]] = {
    "claim": (lambda s, j: claims.claim(s, [j], WORKER), {"queued": "running"}),
    "exclusive claim": (lambda s, j: claims.claim(s, [j], WORKER, alone=True), {}),
    "succeed": (_end("succeeded", "succeeded"), {"running": "succeeded"}),
    "fail": (_end("failed", "failed"), {"running": "failed"}),
    "end as cancelled": (_end("cancelled", "cancelled"), {"running": "cancelled"}),
    "retry": (_end("retrying", "retrying"), {"running": "retrying"}),
    "hand back": (_end("queued", "handed_back"), {"running": "queued"}),
    "snooze": (_end("retrying", "snoozed"), {"running": "retrying"}),
    "wait for children": (_end("waiting", "waiting"), {"running": "waiting"}),
    "stale end": (_end("succeeded", "succeeded", fence=FENCE - 1), {}),
    "end of a later claim": (_end("succeeded", "succeeded", fence=FENCE + 1), {}),
    "mark started": (lambda s, j: claims.mark_started(s, [(j, FENCE, clock.now())]), {}),
    "snapshot": (lambda s, j: claims.snapshot(s, [(j, FENCE, {"percent": 1.0})]), {}),
    "free": (lambda s, j: free(s, WORKER, "killed"), {"running": "queued"}),
    "mark dead": (lambda s, j: workers.mark_dead(s, WORKER, "killed"), {"running": "queued"}),
    "cancel": (lambda s, j: commands.cancel(s, "default", j), dict.fromkeys(NOT_STARTED, "cancelled")),
    "retry of an ended job": (_retry, {"failed": "queued", "cancelled": "queued"}),
    "make due": (lambda s, j: timers.make_due(s, 10), {"scheduled": "queued", "retrying": "queued"}),
    "expire": (lambda s, j: timers.expire(s, 10), {"queued": "failed"}),
    "admit": (lambda s, j: fairness.admit(s, "default", 10), {}),
    "park": (lambda s, j: admissions.park(s, [j], clock.now() + FUTURE), {}),
    "withdraw": (lambda s, j: admissions.withdraw(s), {}),
}


@pytest.mark.parametrize("name", ACTS)
def test_each_function_makes_only_its_moves(ledger_of: Ledger, name: str) -> None:
    act, moves = ACTS[name]
    for state in STATES:
        running = {"worker_id": WORKER, "claimed_at": clock.now()} if state == "running" else {}
        expires = {"expires_at": clock.now() + PAST} if name == "expire" else {}
        job_id = ledger_of.put(state=state, fence=FENCE, due_at=clock.now() + PAST, **running, **expires)
        ledger_of.db.transaction(act, job_id)
        after = ledger_of.row(job_id)
        assert after.state == moves.get(state, state), f"{name} of a {state} job"
        assert after.state == state or (state, after.state) in MOVES
        assert after.fence == FENCE + (after.state == "running" != state)
        assert (after.finished_at is not None) == (after.state in ENDED and after.state != state)
        ledger_of.db.transaction(lambda session: session.execute(sa.delete(JobRow)))


def test_database_refuses_every_other_move(ledger_of: Ledger) -> None:
    """The trigger checks any UPDATE, not only those of the ledger."""
    refused = set()
    for before, after in itertools.permutations(STATES, 2):
        job_id = ledger_of.put(state=before)
        update = sa.update(JOB).where(JOB.c.id == job_id).values(state=after)
        try:
            ledger_of.db.transaction(lambda session, update=update: session.execute(update))  # type: ignore[misc]
        except DBAPIError as error:
            assert "a job cannot make this move" in str(error)
            refused.add((before, after))
            assert ledger_of.row(job_id).state == before
    assert refused == set(itertools.permutations(STATES, 2)) - MOVES


def test_unknown_state_is_refused(ledger_of: Ledger) -> None:
    with pytest.raises(DBAPIError):
        ledger_of.put(state="resting")


def test_dead_or_unknown_worker_claims_nothing(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    assert ledger_of.db.transaction(claims.claim, [job_id], WORKER.replace("1", "2")) == []
    ledger_of.db.transaction(workers.mark_dead, WORKER, "killed")
    assert ledger_of.db.transaction(claims.claim, [job_id], WORKER) == []
    assert ledger_of.row(job_id).state == "queued"


def test_claims_keep_the_requested_order(ledger_of: Ledger) -> None:
    ids = [ledger_of.put() for _ in range(5)]
    requested = [ids[3], ids[0], ids[4], ids[1], ids[2]]
    assert [claim.id for claim in ledger_of.db.transaction(claims.claim, requested, WORKER)] == requested


def test_expired_job_is_not_claimed(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(expires_at=clock.now() + PAST)
    assert ledger_of.db.transaction(claims.claim, [job_id], WORKER) == []


def test_job_with_two_crashes_is_only_claimed_exclusively(ledger_of: Ledger) -> None:
    twice, once = ledger_of.put(crashes=2), ledger_of.put(crashes=1)
    assert [c.id for c in ledger_of.db.transaction(claims.claim, [twice, once], WORKER)] == [once]
    assert [c.id for c in ledger_of.db.transaction(claims.claim, [twice, once], WORKER, alone=True)] == [twice]


@pytest.mark.parametrize(("crashes", "state"), [(2, "queued"), (8, "queued"), (9, "failed")])
def test_crashes_count_less_while_other_workers_die(ledger_of: Ledger, crashes: int, state: State) -> None:
    """Another worker started and died just now and never ran the job."""
    other = uuid7()
    ledger_of.db.transaction(workers.register, other, ["default"], 1, None)
    ledger_of.db.transaction(workers.mark_dead, other, "killed")
    started = {"worker_id": WORKER, "claimed_at": clock.now(), "started_at": clock.now()}
    job_id = ledger_of.put(state="running", fence=FENCE, crashes=crashes, **started)
    ledger_of.db.transaction(workers.mark_dead, WORKER, "process 1 ended")
    row = ledger_of.row(job_id)
    assert (row.state, row.crashes) == (state, crashes + 1)


@pytest.mark.parametrize(("crashes", "state"), [(0, "queued"), (1, "queued"), (2, "failed")])
def test_third_crash_fails_the_job_as_poison(ledger_of: Ledger, crashes: int, state: State) -> None:
    started = {"worker_id": WORKER, "claimed_at": clock.now(), "started_at": clock.now()}
    job_id = ledger_of.put(state="running", fence=FENCE, crashes=crashes, **started)
    ledger_of.db.transaction(workers.mark_dead, WORKER, "process 1 ended")
    row = ledger_of.row(job_id)
    assert (row.state, row.crashes) == (state, crashes + 1)
    assert row.error_code == ("poison" if state == "failed" else None)
    assert [(a.fence, a.outcome, a.error_message) for a in ledger_of.attempts(job_id)] == [
        (FENCE, "died", "process 1 ended")
    ]


def test_worker_death_before_the_start_is_no_crash(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(state="running", fence=FENCE, crashes=2, worker_id=WORKER, claimed_at=clock.now())
    ledger_of.db.transaction(workers.mark_dead, WORKER, "killed")
    assert (ledger_of.row(job_id).state, ledger_of.row(job_id).crashes) == ("queued", 2)


def test_job_with_a_cancel_request_is_cancelled_when_its_worker_dies(ledger_of: Ledger) -> None:
    running = {"worker_id": WORKER, "started_at": clock.now(), "cancel_requested_at": clock.now()}
    job_id = ledger_of.put(state="running", fence=FENCE, **running)
    ledger_of.db.transaction(workers.mark_dead, WORKER, "killed")
    assert ledger_of.row(job_id).state == "cancelled"
    assert ledger_of.row(job_id).finished_at is not None


@pytest.mark.parametrize(
    ("reported", "becomes"), [("retrying", "cancelled"), ("queued", "cancelled"), ("succeeded", "succeeded")]
)
def test_cancel_request_wins_over_a_retry_but_not_over_an_end(
    ledger_of: Ledger, reported: State, becomes: State
) -> None:
    job_id = ledger_of.put(state="running", fence=FENCE, worker_id=WORKER)
    ledger_of.db.transaction(commands.cancel, "default", job_id)
    outcome: Outcome = "handed_back" if reported == "queued" else reported  # type: ignore[assignment]
    ledger_of.db.transaction(_end(reported, outcome), job_id)
    assert ledger_of.row(job_id).state == becomes
    assert ledger_of.row(job_id).finished_at is not None


def test_stale_end_in_one_batch_with_a_valid_end_writes_nothing(ledger_of: Ledger) -> None:
    """Both ends are of one job in one statement; the stale one leaves no attempt."""
    job_id = ledger_of.put(state="running", fence=FENCE, worker_id=WORKER)
    ends = [
        end_of(job_id, FENCE - 1, "failed", tries=1),
        end_of(job_id, FENCE, "succeeded"),
    ]
    moved = ledger_of.db.transaction(finish, ends)
    assert [move.state for move in moved] == ["succeeded"]
    assert [(a.fence, a.outcome) for a in ledger_of.attempts(job_id)] == [(FENCE, "succeeded")]


def test_new_heartbeat_prevents_mark_dead(ledger_of: Ledger) -> None:
    ledger_of.db.transaction(workers.heartbeat, WORKER)
    assert ledger_of.db.transaction(workers.mark_dead, WORKER, "no heartbeat", seen_beat=0) is None
    assert ledger_of.db.transaction(workers.mark_dead, WORKER, "no heartbeat", seen_beat=1) == []
    assert ledger_of.db.transaction(workers.heartbeat, WORKER) is False


def test_retry_resets_tries_and_keeps_the_fence(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(
        state="failed", fence=FENCE, tries=4, crashes=3, error_type="X", finished_at=clock.now(), result={"a": 1}
    )
    ledger_of.db.transaction(commands.retry, "default", job_id)
    row = ledger_of.row(job_id)
    assert (row.state, row.fence, row.tries, row.crashes) == ("queued", FENCE, 0, 0)
    assert [row.error_type, row.finished_at, row.result] == [None] * 3


def test_retry_conflicts_with_an_open_job_of_the_same_key(ledger_of: Ledger) -> None:
    old = ledger_of.put(state="failed", unique_key="page-1")
    ledger_of.put(state="queued", unique_key="page-1")
    with pytest.raises(Conflict, match="page-1"):
        ledger_of.db.transaction(commands.retry, "default", old)
    assert ledger_of.row(old).state == "failed"
