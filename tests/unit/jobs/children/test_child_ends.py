"""Children end with their parent, can be retried, and move its progress."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import redis
from app.core.db import database
from app.core.errors import Cancelled
from app.core.ids import uuid7
from app.jobs.children import children
from app.jobs.children.children import WaitForChildren, max_failures
from app.jobs.ledger import child_moves, commands, views
from app.jobs.models import JobRow
from app.jobs.relay.relay import Relay
from tests.support.databases import SettingsEnv
from tests.support.waiting import wait_until
from tests.unit.jobs.children.family import FAILED, EndRecorder, Family, FamilyHarness, Parent, StagedParent, ended
from tests.unit.jobs.conftest import Chore


@pytest.fixture
def harness(spine_env: SettingsEnv) -> Iterator[FamilyHarness]:
    """Return a worker process for parents and children, with four threads."""
    ended.clear()
    made = FamilyHarness()
    yield made
    made.close()


# Cancel


def test_children_and_grandchildren_are_cancelled_with_the_parent(harness: FamilyHarness) -> None:
    """Children of any state are cancelled, in several batches; `on_end` is called."""
    family = Family(harness, [EndRecorder() for _ in range(3)] + [Parent()])
    family.wait()
    grand = harness.take(4)[-1]
    harness.begin(grand)
    database().transaction(children.start, grand.claim, [Chore(number=n) for n in range(30)])
    harness.end(grand, WaitForChildren())
    harness.until(grand.claim.id, "waiting")
    for run in harness.process.runs.all()[:2]:
        harness.process.hand_back(run)
    running = harness.process.runs.all()
    for run in running:
        harness.begin(run)
    wait_until(lambda: family.states().count("queued") == 2, what="two handed back")
    database().transaction(commands.cancel, "default", family.id)
    assert harness.state(family.id) == "cancelled"
    while database().transaction(child_moves.cancel_children, 4).more:
        pass
    assert family.states().count("cancelled") == 3
    assert len(ended) == 2
    assert {row.state for row in _children(grand.claim.id)} == {"cancelled"}
    assert all(harness.ledger.row(run.claim.id).cancel_requested_at is not None for run in running)
    family.stop_running()
    assert family.counts() == (4, 0, 4)
    assert database().read(children.has_work) == (False, False)


def _children(parent_id: str) -> Sequence[JobRow]:
    return database().read(
        lambda session: list(session.scalars(sa.select(JobRow).where(JobRow.parent_id == parent_id)))
    )


@pytest.mark.parametrize("error", [Cancelled("stop"), FAILED])
def test_parent_that_fails_or_is_cancelled_cancels_its_children(harness: FamilyHarness, error: Exception) -> None:
    family = Family(harness, [Chore(number=n) for n in range(5)])
    harness.end(family.run, error)
    harness.until(family.id, "failed", "cancelled")
    Relay().tick()
    assert set(family.states()) == {"cancelled"}


def test_children_of_a_parent_that_succeeded_without_waiting_go_on(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore()])
    harness.end(family.run)
    harness.until(family.id, "succeeded")
    Relay().tick()
    family.end(1)
    assert (family.states(), family.counts()) == (["succeeded"], (1, 0, 0))
    assert harness.state(family.id) == "succeeded"


def test_parent_cancelled_while_waiting_never_continues(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore()])
    family.wait()
    (child,) = harness.take()
    harness.begin(child)
    database().transaction(commands.cancel, "default", family.id)
    harness.end(child)
    harness.until(child.claim.id, "succeeded")
    Relay().tick()
    assert (harness.state(family.id), family.counts()) == ("cancelled", (1, 0, 0))


def test_cancel_before_the_wait_wins(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore()])
    database().transaction(commands.cancel, "default", family.id)
    harness.end(family.run, WaitForChildren())
    harness.until(family.id, "cancelled")
    Relay().tick()
    assert family.states() == ["cancelled"]


# Retries


def test_retried_child_of_an_ended_parent_does_not_reopen_it(harness: FamilyHarness) -> None:
    """The parent keeps its state; its counters follow."""
    family = Family(harness, [Chore(), Chore()])
    family.wait()
    (failed,) = family.end(1, FAILED)
    Relay().tick()
    family.stop_running()
    family.until("failed")
    assert family.counts() == (2, 0, 2)
    database().transaction(commands.retry, "default", failed)
    assert family.counts() == (2, 1, 1)
    Relay().tick()
    assert harness.state(failed) == "queued"
    family.end(1)
    assert (harness.state(family.id), family.counts()) == ("failed", (2, 0, 1))


def test_retried_child_of_a_waiting_parent_counts_as_open(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore(), Chore()])
    family.wait(max_failures(1))
    (failed,) = family.end(1, FAILED)
    database().transaction(commands.retry, "default", failed)
    assert family.counts() == (2, 2, 0)
    family.end(2)
    assert family.take_parent().claim.continues


def test_retried_parent_keeps_succeeded_children_and_repeats_the_others(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore(number=n) for n in range(3)])
    family.wait(max_failures(0))
    (succeeded,) = family.end(1)
    (failed,) = family.end(1, FAILED)
    Relay().tick()
    family.stop_running()
    family.until("failed")
    assert sorted(family.states()) == ["cancelled", "failed", "succeeded"]
    database().transaction(commands.retry, "default", family.id)
    run = family.take_parent()
    assert not run.claim.continues
    assert family.start() == 0
    assert sorted(family.states()) == ["queued", "queued", "succeeded"]
    family.wait()
    Relay().tick()
    again = family.end(2)
    assert failed in again
    assert succeeded not in again
    assert family.take_parent().claim.continues
    assert family.counts() == (3, 0, 0)


# Progress and counters


def _events(harness: FamilyHarness, job_id: str) -> list[dict[str, Any]]:
    entries: Any = harness.redis.xrange(redis.TENANT_EVENTS.format("default"))
    events = [json.loads(fields["e"]) for _, fields in entries]
    return [event for event in events if event["job_id"] == job_id]


def test_ended_children_move_the_progress_of_the_parent(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore(number=n) for n in range(4)], StagedParent())
    progress = family.run.progress
    assert progress is not None
    progress.report(1, 1, stage="list")
    family.wait()
    assert views.job_view(harness.ledger.row(family.id))["progress"]["percent"] == 10
    family.end(2)
    view = views.job_view(harness.ledger.row(family.id))["progress"]
    assert (view["percent"], view["done"], view["total"], view["unit"]) == (50, 2, 4, "children")
    assert view["stage"] == "children"
    wait_until(lambda: [e["percent"] for e in _events(harness, family.id)][-1:] == [50], what="the event of 50 %")
    family.end(2)
    run = family.take_parent()
    assert run.progress is not None
    assert run.progress.state()["percent"] == 90
    run.progress.report(0, 2, stage="merge")
    assert run.progress.state()["percent"] == 90
    run.progress.report(1, 2)
    assert run.progress.state()["percent"] == 95
    states = [e["state"] for e in _events(harness, family.id) if e["event"] == "state"]
    assert states[-2:] == ["waiting", "queued"]


def test_progress_with_planned_children_does_not_fall(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore()])
    family.wait(planned=4)
    family.end(1)
    assert views.job_view(harness.ledger.row(family.id))["progress"]["percent"] == 25
    run = family.take_parent()
    database().transaction(children.start, run.claim, [Chore()], first=1)
    family.wait(planned=4)
    family.end(1)
    view = views.job_view(harness.ledger.row(family.id))["progress"]
    assert (view["percent"], view["done"], view["total"]) == (50, 2, 4)


def test_job_detail_counts_the_children(harness: FamilyHarness) -> None:
    family = Family(harness, [Chore(number=n) for n in range(3)])
    family.wait(max_failures(1))
    family.end(1, FAILED)
    family.end(1)

    def detail(session: Session) -> dict[str, Any]:
        return views.job_detail(session, views.get(session, "default", family.id))

    counts = database().read(detail)["children"]
    assert counts == {"total": 3, "succeeded": 1, "failed": 1, "open": 1, "rule": "at_most:1"}
    listed = database().read(views.list_jobs, "default", views.JobFilter(parent_id=family.id), 10)
    assert {row.id for row in listed} == set(family.children)
    assert database().read(views.list_jobs, "default", views.JobFilter(parent_id=uuid7()), 10) == []
