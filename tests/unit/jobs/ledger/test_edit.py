"""What a person changes about a job that has not started; nothing of it crosses a claim."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from app.core import clock
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.ledger import claims as book
from app.jobs.ledger.edit import Changes, edit, run_now
from app.jobs.relay.relay import Relay
from app.jobs.states import STATES
from tests.unit.jobs.conftest import WORKER, Chore, Desk, Ledger

HOUR = timedelta(hours=1)
CHANGEABLE = ("scheduled", "queued", "retrying")


class Grown(Job, kind="tests.grown", payload_version=3):
    """A kind whose payload was changed twice."""

    size: int


class Keyed(Job, kind="tests.keyed_edit", unique_key=lambda job: job.house):
    house: int
    colour: str = "white"


def change(ledger: Ledger, job_id: str, **changes: Any) -> None:
    ledger.db.transaction(edit, "default", job_id, Changes(**changes))


@pytest.mark.parametrize("state", ["scheduled", "retrying"])
def test_what_waits_for_its_time_is_started_now(ledger_of: Ledger, state: str) -> None:
    job_id = ledger_of.put(state=state, due_at=clock.now() + HOUR, tries=1)
    ledger_of.db.transaction(run_now, "default", job_id)
    row = ledger_of.row(job_id)
    assert (row.state, row.due_at <= clock.now(), row.tries) == ("queued", True, 1)
    (claim,) = ledger_of.db.transaction(book.claim, [job_id], WORKER)
    assert claim.id == job_id


@pytest.mark.parametrize("state", STATES)
def test_each_state_is_open_to_a_change_or_says_why_not(ledger_of: Ledger, state: str) -> None:
    job_id = ledger_of.put(state=state, fence=1)
    if state in CHANGEABLE:
        change(ledger_of, job_id, payload={"number": 7})
        ledger_of.db.transaction(run_now, "default", job_id)
        assert (ledger_of.row(job_id).payload, ledger_of.row(job_id).state) == ({"number": 7}, "queued")
        return
    for act in (
        lambda: change(ledger_of, job_id, payload={}),
        lambda: ledger_of.db.transaction(run_now, "default", job_id),
    ):
        with pytest.raises(Conflict, match=state):
            act()
    assert (ledger_of.row(job_id).payload, ledger_of.row(job_id).state) == ({}, state)


def test_another_tenants_job_is_not_found(ledger_of: Ledger) -> None:
    for job_id in (ledger_of.put(tenant="other"), uuid7(), "x"):
        with pytest.raises(NotFound):
            change(ledger_of, job_id, expires_at=None)
        with pytest.raises(NotFound):
            ledger_of.db.transaction(run_now, "default", job_id)


def test_a_payload_is_checked_and_written_in_todays_version(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(kind=Grown.kind, payload={"old": 1}, payload_version=1)
    for wrong in ({}, {"size": "x"}, {"size": 1, "more": 1}):
        with pytest.raises(InvalidInput):
            change(ledger_of, job_id, payload=wrong)
    change(ledger_of, job_id, payload={"size": 4})
    assert (ledger_of.row(job_id).payload, ledger_of.row(job_id).payload_version) == ({"size": 4}, 3)


def test_a_payload_may_not_make_it_another_job(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(kind=Keyed.kind, payload={"house": 1}, unique_key="1")
    change(ledger_of, job_id, payload={"house": 1, "colour": "red"})
    with pytest.raises(Conflict, match="another unique key"):
        change(ledger_of, job_id, payload={"house": 2})
    assert ledger_of.row(job_id).payload == {"house": 1, "colour": "red"}


def test_priority_is_set_within_its_bounds(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    change(ledger_of, job_id, priority=-7)
    with pytest.raises(InvalidInput, match="priority"):
        change(ledger_of, job_id, priority=101)
    assert ledger_of.row(job_id).priority == -7


def test_a_payload_of_a_kind_that_is_not_known_here_is_refused(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(kind="shop.unheard_of")
    with pytest.raises(InvalidInput, match="does not know the kind"):
        change(ledger_of, job_id, payload={})


def test_a_due_time_is_moved_both_ways(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(state="scheduled", due_at=clock.now() + HOUR)
    change(ledger_of, job_id, due_at=clock.now() + 2 * HOUR)
    row = ledger_of.row(job_id)
    assert (row.state, row.due_at > clock.now() + HOUR) == ("scheduled", True)
    change(ledger_of, job_id, due_at=clock.now() - HOUR)
    assert ledger_of.row(job_id).state == "queued"


def test_a_queued_job_cannot_be_put_off_since_it_may_be_on_its_way(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    with pytest.raises(Conflict, match="put off"):
        change(ledger_of, job_id, due_at=clock.now() + HOUR)
    change(ledger_of, job_id, due_at=clock.now() - HOUR)
    assert ledger_of.row(job_id).state == "queued"


def test_expiry_is_set_and_taken_away(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    change(ledger_of, job_id, expires_at=clock.now() - HOUR)
    assert ledger_of.db.transaction(book.claim, [job_id], WORKER) == []
    change(ledger_of, job_id, expires_at=None)
    assert len(ledger_of.db.transaction(book.claim, [job_id], WORKER)) == 1


def test_an_edit_and_a_claim_cannot_cross(ledger_of: Ledger) -> None:
    """Either the claim sees the new payload, or the edit is told that it came too late."""
    for _ in range(15):
        job_id = ledger_of.put(payload={"number": 1})
        claimed: list[book.Claim] = []
        told: list[str] = []
        both = threading.Barrier(2)

        def claim(job_id: str = job_id, into: list[book.Claim] = claimed, both: threading.Barrier = both) -> None:
            both.wait(10)
            into.extend(ledger_of.db.transaction(book.claim, [job_id], WORKER))

        def alter(job_id: str = job_id, told: list[str] = told, both: threading.Barrier = both) -> None:
            both.wait(10)
            try:
                change(ledger_of, job_id, payload={"number": 2})
                told.append("changed")
            except Conflict:
                told.append("late")

        threads = [threading.Thread(target=act) for act in (claim, alter)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        (taken,) = claimed
        assert (taken.payload["number"], told) in ((2, ["changed"]), (1, ["late"]))
        assert ledger_of.row(job_id).payload == taken.payload


def test_what_is_started_now_runs_soon_after(desk: Desk) -> None:
    """Through Redis and a relay, as everything else."""
    (job_id,) = desk.enqueue(Chore(), due_at=clock.now() + HOUR)
    desk.ledger.db.transaction(run_now, "default", job_id)
    Relay().tick()
    (run,) = desk.take()
    assert run.claim.id == job_id
