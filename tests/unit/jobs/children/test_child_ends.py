"""Children follow their parent's end; people try either again; the parent's bar is theirs."""

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
from app.jobs.children import children as families
from app.jobs.children.children import WaitForChildren, max_failures
from app.jobs.ledger import child_moves, commands, views
from app.jobs.models import JobRow
from app.jobs.relay.relay import Relay
from tests.support.databases import SettingsEnv
from tests.support.waiting import wait_until
from tests.unit.jobs.children.family import FAILED, Desk, Family, Parent, StagedParent, Told, ended
from tests.unit.jobs.conftest import Chore


@pytest.fixture
def desk(spine_env: SettingsEnv) -> Iterator[Desk]:
    """A worker process for parents and children, with four threads."""
    ended.clear()
    made = Desk()
    yield made
    made.close()


# Cancel


def test_children_are_cancelled_with_their_parent(desk: Desk) -> None:
    """Of any state, grandchildren too, in as many batches as it takes; their ends are told."""
    family = Family(desk, [Told() for _ in range(3)] + [Parent()])
    family.wait()
    grand = desk.take(4)[-1]
    desk.begin(grand)
    database().transaction(families.start, grand.claim, [Chore(number=n) for n in range(30)])
    desk.end(grand, WaitForChildren())
    desk.until(grand.claim.id, "waiting")
    for run in desk.process.runs.all()[:2]:
        desk.process.hand_back(run)
    running = desk.process.runs.all()
    for run in running:
        desk.begin(run)
    wait_until(lambda: family.states().count("queued") == 2, what="two handed back")
    database().transaction(commands.cancel, "default", family.id)
    assert desk.state(family.id) == "cancelled"
    while database().transaction(child_moves.cancel_children, 4).more:
        pass
    assert family.states().count("cancelled") == 3
    assert len(ended) == 2
    assert {row.state for row in _children(grand.claim.id)} == {"cancelled"}
    assert all(desk.ledger.row(run.claim.id).cancel_requested_at is not None for run in running)
    family.stop_running()
    assert family.counts() == (4, 0, 4)
    assert database().read(families.has_work) == (False, False)


def _children(parent_id: str) -> Sequence[JobRow]:
    return database().read(
        lambda session: list(session.scalars(sa.select(JobRow).where(JobRow.parent_id == parent_id)))
    )


@pytest.mark.parametrize("error", [Cancelled("stop"), FAILED])
def test_a_parent_that_ends_badly_while_it_runs_takes_its_children_with_it(desk: Desk, error: Exception) -> None:
    family = Family(desk, [Chore(number=n) for n in range(5)])
    desk.end(family.run, error)
    desk.until(family.id, "failed", "cancelled")
    Relay().tick()
    assert set(family.states()) == {"cancelled"}


def test_children_of_a_parent_that_did_not_wait_go_on(desk: Desk) -> None:
    family = Family(desk, [Chore()])
    desk.end(family.run)
    desk.until(family.id, "succeeded")
    Relay().tick()
    family.end(1)
    assert (family.states(), family.counts()) == (["succeeded"], (1, 0, 0))
    assert desk.state(family.id) == "succeeded"


def test_a_parent_cancelled_while_it_waits_never_goes_on(desk: Desk) -> None:
    family = Family(desk, [Chore()])
    family.wait()
    (child,) = desk.take()
    desk.begin(child)
    database().transaction(commands.cancel, "default", family.id)
    desk.end(child)
    desk.until(child.claim.id, "succeeded")
    Relay().tick()
    assert (desk.state(family.id), family.counts()) == ("cancelled", (1, 0, 0))


def test_a_cancel_that_comes_before_the_wait_wins(desk: Desk) -> None:
    family = Family(desk, [Chore()])
    database().transaction(commands.cancel, "default", family.id)
    desk.end(family.run, WaitForChildren())
    desk.until(family.id, "cancelled")
    Relay().tick()
    assert family.states() == ["cancelled"]


# Tried again by a person


def test_a_failed_child_tried_again_of_an_ended_parent_runs_alone(desk: Desk) -> None:
    """The parent stays what it is; its counts follow."""
    family = Family(desk, [Chore(), Chore()])
    family.wait()
    (failed,) = family.end(1, FAILED)
    Relay().tick()
    family.stop_running()
    family.until("failed")
    assert family.counts() == (2, 0, 2)
    database().transaction(commands.retry, "default", failed)
    assert family.counts() == (2, 1, 1)
    Relay().tick()
    assert desk.state(failed) == "queued"
    family.end(1)
    assert (desk.state(family.id), family.counts()) == ("failed", (2, 0, 1))


def test_a_failed_child_tried_again_of_a_waiting_parent_counts_as_open(desk: Desk) -> None:
    family = Family(desk, [Chore(), Chore()])
    family.wait(max_failures(1))
    (failed,) = family.end(1, FAILED)
    database().transaction(commands.retry, "default", failed)
    assert family.counts() == (2, 2, 0)
    family.end(2)
    assert family.take_parent().claim.continues


def test_a_parent_tried_again_keeps_what_succeeded_and_repeats_what_failed(desk: Desk) -> None:
    family = Family(desk, [Chore(number=n) for n in range(3)])
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


# Told


def _told(desk: Desk, job_id: str) -> list[dict[str, Any]]:
    kept: Any = desk.redis.xrange(redis.TENANT_EVENTS.format("default"))
    told = [json.loads(fields["e"]) for _, fields in kept]
    return [event for event in told if event["job_id"] == job_id]


def test_the_childrens_ends_are_the_parents_bar(desk: Desk) -> None:
    family = Family(desk, [Chore(number=n) for n in range(4)], StagedParent())
    progress = family.run.progress
    assert progress is not None
    progress.report(1, 1, stage="list")
    family.wait()
    assert views.job_view(desk.ledger.row(family.id))["progress"]["percent"] == 10
    family.end(2)
    bar = views.job_view(desk.ledger.row(family.id))["progress"]
    assert (bar["percent"], bar["done"], bar["total"], bar["unit"]) == (50, 2, 4, "children")
    assert bar["stage"] == "children"
    wait_until(lambda: [e["percent"] for e in _told(desk, family.id)][-1:] == [50], what="the half to be told")
    family.end(2)
    run = family.take_parent()
    assert run.progress is not None
    assert run.progress.now()["percent"] == 90
    run.progress.report(0, 2, stage="merge")
    assert run.progress.now()["percent"] == 90
    run.progress.report(1, 2)
    assert run.progress.now()["percent"] == 95
    states = [e["state"] for e in _told(desk, family.id) if e["event"] == "state"]
    assert states[-2:] == ["waiting", "queued"]


def test_a_family_that_grows_has_a_bar_that_does_not_fall(desk: Desk) -> None:
    family = Family(desk, [Chore()])
    family.wait(planned=4)
    family.end(1)
    assert views.job_view(desk.ledger.row(family.id))["progress"]["percent"] == 25
    run = family.take_parent()
    database().transaction(families.start, run.claim, [Chore()], first=1)
    family.wait(planned=4)
    family.end(1)
    bar = views.job_view(desk.ledger.row(family.id))["progress"]
    assert (bar["percent"], bar["done"], bar["total"]) == (50, 2, 4)


def test_the_detail_counts_the_children(desk: Desk) -> None:
    family = Family(desk, [Chore(number=n) for n in range(3)])
    family.wait(max_failures(1))
    family.end(1, FAILED)
    family.end(1)

    def detail(session: Session) -> dict[str, Any]:
        return views.job_detail(session, views.get(session, "default", family.id))

    children = database().read(detail)["children"]
    assert children == {"total": 3, "succeeded": 1, "failed": 1, "open": 1, "rule": "at_most:1"}
    listed = database().read(views.list_jobs, "default", views.JobFilter(parent_id=family.id), 10)
    assert {row.id for row in listed} == set(family.children)
    assert database().read(views.list_jobs, "default", views.JobFilter(parent_id=uuid7()), 10) == []
