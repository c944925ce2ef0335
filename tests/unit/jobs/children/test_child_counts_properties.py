"""For any order of ends, crashes, cancels and retries, child counters are right and rules hold."""

from __future__ import annotations

from collections.abc import Sequence
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
from app.jobs.child_rules import AGAIN, Wait
from app.jobs.children import children
from app.jobs.children.children import ALL, ALWAYS, ANY, Rule, max_failures
from app.jobs.definition import Job
from app.jobs.ledger import child_moves, claims, commands, timers, workers
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.ends import finish
from app.jobs.models import JOB, AttemptRow, JobRow, WorkerRow
from app.jobs.relay import fairness
from app.jobs.states import ENDED, OPEN, State
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import Databases, Ledger, end_of

HOUR = timedelta(hours=1)
MAX_JOBS = 14
Which = st.integers(0, 13)
RULES = {rule.name: rule for rule in (ALL, ANY, ALWAYS, max_failures(1))}
ENDS: list[State] = ["succeeded", "succeeded", "failed", "cancelled", "retrying", "queued"]


class Child(Job, kind="tests.property_child"):
    """A job that may also be a parent."""


class Forest(RuleBasedStateMachine):
    """Jobs that start others, wait and end in any order; after each step every counter is compared with the rows."""

    db: Database

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(self.db)
        self.worker = self.ledger.worker(uuid7())
        self.claims: dict[str, Claim] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.reopened: set[str] = set()

    def _pick(self, which: int, *states: str) -> str | None:
        ids = sorted(job_id for job_id, row in self.rows.items() if row["state"] in states)
        return ids[which % len(ids)] if ids else None

    def _children(self, parent: str) -> list[dict[str, Any]]:
        return [row for row in self.rows.values() if row["parent_id"] == parent]

    # Steps

    @precondition(lambda self: len(self.rows) < 3)
    @rule()
    def enqueue(self) -> None:
        self.ledger.put(max_tries=2)

    @rule(which=st.lists(Which, min_size=1, max_size=4))
    def claim(self, which: list[int]) -> None:
        ids = sorted({job_id for number in which if (job_id := self._pick(number, "queued"))})
        for claim in self.db.transaction(claims.claim, ids, self.worker):
            before = self.rows[claim.id]
            assert claim.continues == (before["family_rule"] not in (None, AGAIN))
            self.claims[claim.id] = claim

    @rule(which=Which, count=st.integers(1, 3), first=st.integers(0, 2))
    def start(self, which: int, count: int, first: int) -> None:
        """Start children, also with a lost or cancelled claim and with existing indexes."""
        job_id = self._pick(which, *OPEN, *ENDED)
        claim = self.claims.get(job_id or "")
        if claim is None or len(self.rows) > MAX_JOBS:
            return
        row, known = self.rows[claim.id], {child["child_index"] for child in self._children(claim.id)}
        try:
            new = self.db.transaction(children.start, claim, [Child() for _ in range(count)], first=first)
        except (Stale, Cancelled):
            assert (row["state"], row["fence"]) != ("running", claim.fence) or row["cancel_requested_at"]
            return
        assert new == len(set(range(first, first + count)) - known)

    @rule(which=st.lists(Which, min_size=1, max_size=3), name=st.sampled_from(sorted(RULES)))
    def wait(self, which: list[int], name: str) -> None:
        """Let a batch of running jobs wait, parents and children alike."""
        ids = sorted({job_id for number in which if (job_id := self._pick(number, "running"))})
        ends = [end_of(i, self.rows[i]["fence"], "waiting", wait=Wait(RULES[name])) for i in ids]
        self.db.transaction(finish, ends)

    @rule(which=st.lists(Which, min_size=1, max_size=4), state=st.sampled_from(ENDS), hinted=st.booleans())
    def finish(self, which: list[int], state: State, hinted: bool) -> None:
        ids = sorted({job_id for number in which if (job_id := self._pick(number, "running"))})
        ends = [
            end_of(i, row["fence"], state, due_at=clock.now() - HOUR, parent_id=row["parent_id"] if hinted else None)
            for i, row in ((i, self.rows[i]) for i in ids)
        ]
        self.db.transaction(finish, ends)

    @rule(which=Which)
    def cancel(self, which: int) -> None:
        job_id = self._pick(which, *OPEN)
        if job_id:
            self.db.transaction(commands.cancel, "default", job_id)

    @rule(which=Which)
    def retry(self, which: int) -> None:
        job_id = self._pick(which, *ENDED)
        if job_id is None:
            return
        try:
            self.db.transaction(commands.retry, "default", job_id)
        except Conflict:
            assert self.rows[job_id]["state"] == "succeeded"

    @rule(which=Which)
    def expire(self, which: int) -> None:
        job_id = self._pick(which, "queued")
        past = sa.update(JobRow).where(JobRow.id == job_id).values(expires_at=clock.now() - HOUR)
        if job_id:
            self.db.transaction(lambda session: session.execute(past))
        self.db.transaction(timers.expire, 10)

    @rule(started=st.booleans())
    def crash(self, started: bool) -> None:
        if started:
            running = [row for row in self.rows.values() if row["state"] == "running"]
            self.db.transaction(claims.mark_started, [(row["id"], row["fence"], clock.now()) for row in running])
        dead, self.worker = self.worker, self.ledger.worker(uuid7())
        assert self.db.transaction(workers.mark_dead, dead, "killed") is not None

    @rule(limit=st.integers(1, 3))
    def cancel_children(self, limit: int) -> None:
        """Cancel one batch; a crash may come before the next."""
        self.db.transaction(child_moves.cancel_children, limit)

    @rule()
    def settle(self) -> None:
        """Settle by the rule, counting only children since the last settlement."""
        moved = {move.id: move.state for move in self.db.transaction(child_moves.settle)}
        ready = {i: row for i, row in self.rows.items() if row["state"] == "waiting" and not row["open_children"]}
        assert moved.keys() == ready.keys()
        for job_id, row in ready.items():
            new, failed = row["children"] - row["settled_children"], row["failed_children"] - row["settled_failed"]
            assert moved[job_id] == ("queued" if _holds(RULES[row["family_rule"]], new, failed) else "failed")

    @rule()
    def relay(self) -> None:
        self.db.transaction(timers.make_due, 20)
        self.db.transaction(fairness.admit, "default", 20)

    # Invariants after each step

    @invariant()
    def check_counters(self) -> None:
        before, self.rows = self.rows, self.db.read(_rows)
        ended = {job_id for job_id, row in before.items() if row["state"] in ENDED}
        self.reopened |= {job_id for job_id in ended if self.rows[job_id]["state"] in OPEN}
        for job_id, row in self.rows.items():
            states = [child["state"] for child in self._children(job_id)]
            counted = (row["children"], row["open_children"], row["failed_children"])
            assert counted == (
                len(states),
                sum(state in OPEN for state in states),
                sum(state in ("failed", "cancelled") for state in states),
            )
            assert row["state"] != "waiting" or row["family_rule"] in RULES
            assert not row["cut_children"] or row["state"] in ("waiting", "failed", "cancelled")
            if row["state"] == "waiting":
                progress = row["progress"]
                assert (progress["done"], progress["total"]) == (
                    row["children"] - row["open_children"],
                    row["children"],
                )

    @invariant()
    def check_children_are_cancelled(self) -> None:
        """Open children of a failed or cancelled parent are listed, stopping, or reopened by a retry."""
        for row in self.rows.values():
            if row["state"] in ("failed", "cancelled") and not row["cut_children"]:
                left = [child for child in self._children(row["id"]) if child["state"] in OPEN]
                requested = {
                    child["id"] for child in left if child["state"] == "running" and child["cancel_requested_at"]
                }
                assert {child["id"] for child in left} - requested <= self.reopened

    def teardown(self) -> None:
        """Run every job to its end from any state."""
        for _ in range(12):
            while self.db.transaction(child_moves.cancel_children).more:
                pass
            self.db.transaction(child_moves.settle)
            self.db.transaction(lambda session: session.execute(sa.update(JobRow).values(due_at=clock.now() - HOUR)))
            self.db.transaction(timers.make_due, 100)
            self.db.transaction(timers.expire, 100)
            ids = [job_id for job_id, row in self.db.read(_rows).items() if row["state"] == "queued"]
            for alone in (False, True):
                self.db.transaction(claims.claim, ids, self.worker, alone=alone)
            running = [(i, r["fence"]) for i, r in self.db.read(_rows).items() if r["state"] == "running"]
            self.db.transaction(finish, [end_of(job_id, fence, "succeeded") for job_id, fence in running])
            self.check_counters()
        assert {row["state"] for row in self.rows.values()} <= set(ENDED)
        assert self.db.read(children.has_work) == (False, False)
        self.db.transaction(_delete_all)


def _holds(rule: Rule, total: int, failed: int) -> bool:
    return {"all": failed == 0, "any": total > failed, "anyhow": True, "at_most:1": failed <= 1}[rule.name]


def _rows(session: Session) -> dict[str, dict[str, Any]]:
    return {row["id"]: dict(row) for row in session.execute(sa.select(*JOB.columns)).mappings().all()}


def _delete_all(session: Session) -> None:
    tables: Sequence[Any] = (AttemptRow, JobRow, WorkerRow)
    for table in tables:
        session.execute(sa.delete(table))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "examples", "steps"), [("sqlite", 25, 25), ("postgresql", 8, 20)])
def test_any_interleaving_keeps_child_counters_and_rules(
    ledger_databases: Databases, redis_url: str, settings_env: SettingsEnv, kind: str, examples: int, steps: int
) -> None:
    settings_env(redis_url=redis_url)
    machine = type("On", (Forest,), {"db": ledger_databases.empty(kind)})
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
