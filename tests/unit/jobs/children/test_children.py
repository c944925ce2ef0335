"""A parent starts children, waits without a worker, and continues or fails by its rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.core import redis
from app.core.db import database
from app.core.errors import Stale, Unavailable
from app.jobs.children import children
from app.jobs.children.children import ALL, ALWAYS, ANY, Child, Rule, WaitForChildren, max_failures
from app.jobs.ledger import workers
from app.jobs.ledger.enqueue import enqueue
from app.jobs.relay.relay import Relay
from tests.support.databases import SettingsEnv
from tests.support.waiting import wait_until
from tests.unit.jobs.children.family import FAILED, Family, FamilyHarness, Keyed, Parent, ended
from tests.unit.jobs.conftest import Chore


@pytest.fixture
def harness(spine_env: SettingsEnv) -> Iterator[FamilyHarness]:
    """Return a worker process for parents and children, with four threads."""
    ended.clear()
    made = FamilyHarness()
    yield made
    made.close()


def test_parent_waits_without_a_worker_and_continues_with_the_results(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore(number=n) for n in range(3)])
    assert not family.run.claim.continues
    family.wait()
    assert len(harness.process.runs) == 0
    runs = harness.take(3)
    for number, run in enumerate(runs):
        harness.begin(run)
        run.result = {"made": number}
        harness.end(run)
    run = family.take_parent()
    assert run.claim.continues
    assert (run.claim.tries, run.claim.fence) == (0, 2)
    page = database().read(children.results_page, family.id, after=0, limit=1)
    assert [(child.number, child.state, child.result) for child in page] == [(1, "succeeded", {"made": 1})]
    harness.end(run)
    harness.until(family.id, "succeeded")
    assert [attempt.outcome for attempt in harness.ledger.attempts(family.id)] == ["waiting", "succeeded"]
    assert family.counts() == (3, 0, 0)


@pytest.mark.anyio
async def test_results_are_read_page_by_page(harness: FamilyHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PAGE", 4)
    family = Family(harness, [Chore(number=n) for n in range(10)])
    rows: list[Child] = [child async for child in children.results(family.run.claim)]
    assert [child.number for child in rows] == list(range(10))


def test_children_have_the_tenant_and_request_id_of_the_parent(harness: FamilyHarness) -> None:
    (parent,) = [database().transaction(_enqueue_for, "other")]
    (run,) = harness.take()
    database().transaction(children.start, run.claim, [Chore()])
    (child,) = database().read(children.results_page, parent)
    row = harness.ledger.row(child.id)
    assert (row.tenant, row.request_id, row.parent_id) == ("other", "asked", parent)


def _enqueue_for(session: Session, tenant: str) -> str:
    return enqueue(session, Parent(), tenant=tenant, request_id="asked").id


def test_second_run_of_a_parent_starts_no_child_twice(harness: FamilyHarness) -> None:
    """The worker dies between two batches; the next run starts only the missing children."""
    family = Family(harness, [Chore(number=n) for n in range(2)])
    first = family.children
    database().transaction(workers.mark_dead, harness.process.id, "killed")
    harness.process.rename()
    database().transaction(workers.register, harness.process.id, ["default"], 4, None)
    for run in (*harness.spare, family.run):
        harness.end(run, Stale("lost"))
    harness.spare.clear()
    Relay().tick()
    runs = harness.take(3)
    for run in runs:
        harness.begin(run)
        if run.claim.id != family.id:
            harness.end(run, FAILED)
            harness.until(run.claim.id, "failed")
    (family.run,) = [run for run in runs if run.claim.id == family.id]
    assert (family.run.claim.continues, family.run.claim.fence) == (False, 2)
    family.jobs = [Chore(number=n) for n in range(5)]
    assert [family.start(), family.start()] == [3, 0]
    assert family.children[:2] == first
    assert family.counts() == (5, 3, 2)


def test_lost_claim_starts_no_children(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore()])
    database().transaction(workers.mark_dead, harness.process.id, "killed")
    with pytest.raises(Stale):
        family.start()
    assert family.counts()[0] == 1


def test_parent_without_children_continues_at_once(harness: FamilyHarness) -> None:
    family = Family(harness, [])
    family.wait()
    assert family.take_parent().claim.continues


def test_children_that_ended_before_the_wait_count(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore(), Chore()])
    family.end(2)
    family.wait()
    assert family.take_parent().claim.continues


# Rules


@pytest.mark.parametrize(
    ("rule", "succeed", "fail", "state"),
    [
        (ALL, 3, 0, "queued"),
        (ALL, 2, 1, "failed"),
        (max_failures(1), 2, 1, "queued"),
        (max_failures(1), 1, 2, "failed"),
        (ANY, 1, 2, "queued"),
        (ANY, 0, 3, "failed"),
        (ALWAYS, 0, 3, "queued"),
    ],
)
def test_rule_decides_the_state_of_the_parent(
    harness: FamilyHarness, rule: Rule, succeed: int, fail: int, state: str
) -> None:
    family = Family(harness, [Chore(number=n) for n in range(3)])
    family.wait(rule)
    family.end(fail, FAILED)
    family.end(succeed)
    assert family.counts() == (3, 0, fail)
    row = family.until("queued", "failed")
    assert row.state == state
    assert row.finished_at is None or state == "failed"
    if state == "failed":
        assert (row.error_code, row.error_type) == ("children_failed", "ChildrenFailed")
        assert f"{fail} of 3 children failed" in str(row.error_message)


@pytest.mark.parametrize(("rule", "error", "state"), [(ALL, FAILED, "failed"), (ANY, None, "queued")])
def test_early_decision_cancels_other_children(
    harness: FamilyHarness, rule: Rule, error: BaseException | None, state: str
) -> None:
    """The first end decides: waiting children never start, running ones are stopped, then the parent moves."""
    family = Family(harness, [Chore(number=n) for n in range(40)])
    family.wait(rule)
    family.end(1, error)
    running = harness.process.runs.all()
    with redis.subscription() as pubsub:
        pubsub.subscribe(redis.CANCEL_CHANNEL)
        pubsub.get_message(timeout=1)
        Relay().tick()
        message: Any = wait_until(lambda: pubsub.get_message(timeout=0.1), what="the cancel notice")
    assert message["data"] in {run.claim.id for run in running}
    assert harness.state(family.id) == "waiting"
    assert sorted(set(family.states())) == sorted({"cancelled", "running", "failed" if error else "succeeded"})
    family.stop_running()
    family.until(state)
    assert family.counts() == (40, 0, 40 if error else 39)


def test_later_wait_of_the_same_job_has_a_separate_rule(harness: FamilyHarness) -> None:
    """Failures allowed by the first rule do not count in the second."""
    family = Family(harness, [Chore(), Chore()])
    family.wait(max_failures(1))
    family.end(1, FAILED)
    family.end(1)
    run = family.take_parent()
    database().transaction(children.start, run.claim, [Chore(), Chore()], first=2)
    family.wait(ANY)
    assert harness.state(family.id) == "waiting"
    family.end(1, FAILED)
    family.end(1)
    assert family.take_parent().claim.continues
    harness.end(family.run)
    harness.until(family.id, "succeeded")


def test_failed_grandchild_fails_child_and_parent(harness: FamilyHarness) -> None:
    """A child may be a parent; failures move up."""
    family = Family(harness, [Parent()])
    family.wait()
    (child,) = harness.take()
    harness.begin(child)
    database().transaction(children.start, child.claim, [Chore()])
    harness.end(child, WaitForChildren())
    harness.until(child.claim.id, "waiting")
    family.end(1, FAILED)
    family.until("failed")
    assert harness.state(child.claim.id) == "failed"
    assert family.counts() == (1, 0, 1)


def test_retrying_child_is_still_open(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore()])
    family.wait()
    family.end(1, Unavailable("not now"))
    assert family.counts() == (1, 1, 0)
    Relay().tick()
    assert harness.state(family.id) == "waiting"


def test_open_job_with_the_key_of_a_child_does_not_become_one(harness: FamilyHarness) -> None:
    harness.enqueue(Keyed(number=1))
    (other,) = harness.take()
    family = Family(harness, [Keyed(number=1), Keyed(number=2)])
    assert family.counts() == (1, 1, 0)
    assert [child.number for child in database().read(children.results_page, family.id)] == [1]
    assert harness.ledger.row(other.claim.id).parent_id is None
