"""The ledger keeps its invariants for any order of claims, ends, commands, relay passes and crashes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import Database
from app.core.errors import Cancelled, Conflict, Stale
from app.core.ids import uuid7
from app.jobs import states, transition
from app.jobs.ledger import admissions, claims, commands, ends, timers, workers
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import End
from app.jobs.models import JOB, AttemptRow, JobRow, WorkerRow
from app.jobs.relay import fairness
from app.jobs.states import ENDED, MOVES, Outcome, State
from tests.unit.jobs.conftest import Databases, Ledger, end_of

HOUR = timedelta(hours=1)
MAX_TRIES = 3
Which = st.integers(0, 7)

# Possible ends of a run: state, outcome, tries used, and whether the next try is due.
ENDS: list[tuple[State, Outcome, int, bool]] = [
    ("succeeded", "succeeded", 0, True),
    ("failed", "failed", 1, True),
    ("cancelled", "cancelled", 0, True),
    ("retrying", "retrying", 1, True),
    ("retrying", "retrying", 1, False),
    ("queued", "handed_back", 0, True),
]


class RolledBack(Exception):
    """Roll the transaction back after its work."""


class Interleaving(RuleBasedStateMachine):
    """Any order of all moves; after each step every row is compared with its previous state."""

    db: Database

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(self.db)
        self.rows: dict[str, dict[str, Any]] = {}
        self.claims: list[Claim] = []
        self.claimed: set[str] = set()
        self.retried: set[str] = set()
        self.workers = [self._new_worker(), self._new_worker()]

    def _new_worker(self) -> str:
        return self.ledger.worker(uuid7())

    def _job(self, which: int) -> str | None:
        ids = sorted(self.rows)
        return ids[which % len(ids)] if ids else None

    def _claim_of(self, which: int) -> Claim:
        return self.claims[-1 - which % len(self.claims)]

    # Steps

    @precondition(lambda self: len(self.rows) < 6)
    @rule(state=st.sampled_from(["queued", "scheduled"]), due=st.booleans(), expired=st.booleans())
    def enqueue(self, state: str, due: bool, expired: bool) -> None:
        now = clock.now()
        expires_at = now - HOUR if expired and due and state == "queued" else None
        due_at = now - HOUR if due or state == "queued" else now + HOUR
        job_id = self.ledger.put(state=state, due_at=due_at, expires_at=expires_at, max_tries=MAX_TRIES)
        self.rows[job_id] = {}

    @rule(which=st.lists(Which, min_size=1, max_size=3), worker=st.integers(0, 1), alone=st.booleans())
    def claim(self, which: list[int], worker: int, alone: bool) -> None:
        ids = list(dict.fromkeys(job_id for job_id in map(self._job, which) if job_id))
        batch = self.db.transaction(claims.claim, ids, self.workers[worker], alone=alone)
        assert len(batch) == len({claim.id for claim in batch})
        assert all((claim.crashes >= states.CRASHES_BEFORE_ALONE) == alone for claim in batch)
        self.claims += batch
        self.claimed = {claim.id for claim in batch}

    @precondition(lambda self: self.claims)
    @rule(which=Which)
    def start(self, which: int) -> None:
        claim = self._claim_of(which)
        self.db.transaction(claims.mark_started, [(claim.id, claim.fence, clock.now())])

    @precondition(lambda self: self.claims)
    @rule(which=Which)
    def report(self, which: int) -> None:
        claim = self._claim_of(which)
        self.db.transaction(claims.snapshot, [(claim.id, claim.fence, {"percent": 1.0, "seq": 1})])

    def _end(self, claim: Claim, ending: tuple[State, Outcome, int, bool]) -> End:
        state, outcome, counts, due = ending
        tries = claim.tries + counts
        if state == "retrying" and tries >= claim.max_tries:
            state, outcome = "failed", "failed"
        due_at = clock.now() + (-HOUR if due else HOUR) if state == "retrying" else None
        return end_of(claim.id, claim.fence, state, outcome, tries=tries, due_at=due_at)

    @precondition(lambda self: self.claims)
    @rule(
        which=st.lists(Which, min_size=1, max_size=4, unique=True),
        ending=st.sampled_from(ENDS),
        undo=st.booleans(),
    )
    def finish(self, which: list[int], ending: tuple[State, Outcome, int, bool], undo: bool) -> None:
        """End a batch of held and of lost claims."""
        batch = {(claim.id, claim.fence): claim for claim in map(self._claim_of, which)}
        held = {key for key in batch if self.rows[key[0]]["fence"] == key[1] and self._state(key[0]) == "running"}

        def write(session: Session) -> list[transition.Moved]:
            moved = ends.finish(session, [self._end(claim, ending) for claim in batch.values()])
            if undo:
                raise RolledBack
            return moved

        try:
            moved = self.db.transaction(write)
        except RolledBack:
            return
        assert {move.id for move in moved} == {job_id for job_id, _ in held}

    @rule(which=Which)
    def cancel(self, which: int) -> None:
        job_id = self._job(which)
        if job_id:
            self.db.transaction(commands.cancel, "default", job_id)

    @rule(which=Which)
    def retry(self, which: int) -> None:
        job_id = self._job(which)
        if job_id is None:
            return
        try:
            self.db.transaction(commands.retry, "default", job_id)
            self.retried = {job_id}
        except Conflict:
            assert self._state(job_id) not in ("failed", "cancelled")

    @rule(worker=st.integers(0, 1))
    def crash(self, worker: int) -> None:
        dead, self.workers[worker] = self.workers[worker], self._new_worker()
        assert self.db.transaction(workers.mark_dead, dead, "killed") is not None

    @rule()
    def relay(self) -> None:
        self.db.transaction(timers.make_due, 10)
        self.db.transaction(fairness.admit, "default", 3)

    @rule()
    def expire(self) -> None:
        self.db.transaction(timers.expire, 10)

    @rule()
    def flush(self) -> None:
        self.db.transaction(admissions.withdraw)

    @rule(which=Which)
    def park(self, which: int) -> None:
        job_id = self._job(which)
        if job_id:
            self.db.transaction(admissions.park, [job_id], clock.now() - HOUR)

    # Invariants after each step

    def _state(self, job_id: str) -> str:
        return str(self.rows[job_id]["state"])

    @invariant()
    def check_every_row(self) -> None:
        self.db.read(self._check_all)

    def _check_all(self, session: Session) -> None:
        self._check_moves(_rows(session))
        self._check_rows_and_attempts({worker.id for worker in workers.list_alive(session)}, _attempts(session))
        for claim in self.claims[-4:]:
            self._check_hold(session, claim)

    def _check_moves(self, rows: dict[str, dict[str, Any]]) -> None:
        for job_id, now in rows.items():
            before = self.rows[job_id]
            if before:
                self._compare(job_id, before, now)
            else:
                assert now["fence"] == 0
            self.rows[job_id] = now
        self.claimed, self.retried = set(), set()

    def _compare(self, job_id: str, before: dict[str, Any], now: dict[str, Any]) -> None:
        moved = before["state"] != now["state"]
        assert not moved or (before["state"], now["state"]) in MOVES
        risen = int(job_id in self.claimed)
        assert now["fence"] == before["fence"] + risen, "only a claim raises the fence"
        assert bool(risen) == (now["state"] == "running" != before["state"])
        if before["state"] in ENDED and job_id not in self.retried:
            assert now == before, "only a retry changes an ended job"

    def _check_rows_and_attempts(self, alive: set[str], attempts: dict[str, list[int]]) -> None:
        for job_id, row in self.rows.items():
            running = row["state"] == "running"
            assert row["state"] in (*ENDED, "scheduled", "queued", "retrying", "running")
            assert row["worker_id"] in alive or not running
            assert row["tries"] <= row["max_tries"]
            assert row["crashes"] <= ends.MAX_CRASHES
            assert row["cancel_requested_at"] is None or row["state"] in (*ENDED, "running")
            assert (row["finished_at"] is not None) == (row["state"] in ENDED)
            assert row["admitted_at"] is None or row["state"] in ("queued", "running")
            ended_claims = range(1, row["fence"] + (0 if running else 1))
            assert attempts.get(job_id, []) == list(ended_claims), "one attempt for each claim that ended"

    def _check_hold(self, session: Session, claim: Claim) -> None:
        row = self.rows[claim.id]
        expected: type[Exception] | None = None
        if row["state"] != "running" or row["fence"] != claim.fence:
            expected = Stale
        elif row["cancel_requested_at"] is not None:
            expected = Cancelled
        try:
            claims.hold(session, claim)
            assert expected is None
        except (Stale, Cancelled) as error:
            assert type(error) is expected

    def teardown(self) -> None:
        """Run every job to its end from any state."""
        for _ in range(3):
            self.db.transaction(lambda session: session.execute(sa.update(JobRow).values(due_at=clock.now() - HOUR)))
            self.db.transaction(timers.make_due, 100)
            self.db.transaction(timers.expire, 100)
            ids = [ref.id for ref in self.db.transaction(fairness.admit, "default", 100)]
            ids += [job_id for job_id, row in self.db.read(_rows).items() if row["admitted_at"]]
            for alone in (False, True):
                self.db.transaction(claims.claim, ids, self.workers[0], alone=alone)
            running = [(i, r["fence"]) for i, r in self.db.read(_rows).items() if r["state"] == "running"]
            self.db.transaction(ends.finish, [end_of(job_id, fence, "succeeded") for job_id, fence in running])
        assert {row["state"] for row in self.db.read(_rows).values()} <= set(ENDED)
        self.db.transaction(_delete_all)


def _rows(session: Session) -> dict[str, dict[str, Any]]:
    rows = session.execute(sa.select(*JOB.columns)).mappings().all()
    return {row["id"]: dict(row) for row in rows}


def _attempts(session: Session) -> dict[str, list[int]]:
    query = sa.select(AttemptRow.job_id, AttemptRow.fence).order_by(AttemptRow.job_id, AttemptRow.fence)
    fences: dict[str, list[int]] = {}
    for job_id, fence in session.execute(query):
        fences.setdefault(job_id, []).append(fence)
    return fences


def _delete_all(session: Session) -> None:
    for table in (AttemptRow, JobRow, WorkerRow):
        session.execute(sa.delete(table))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "examples", "steps"), [("sqlite", 40, 25), ("postgresql", 10, 20)])
def test_any_interleaving_keeps_every_invariant(
    ledger_databases: Databases, kind: str, examples: int, steps: int
) -> None:
    """Checks fences, attempts, tries, ends and holds after every step; finally every job ends."""
    machine = type("On", (Interleaving,), {"db": ledger_databases.empty(kind)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
