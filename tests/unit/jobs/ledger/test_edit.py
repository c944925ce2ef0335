"""Edits of a job that has not started; an edit never crosses a claim."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from app.core import clock
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.ledger import claims
from app.jobs.ledger.edit import Changes, edit, run_now
from app.jobs.relay.relay import Relay
from app.jobs.states import STATES
from tests.unit.jobs.conftest import WORKER, Chore, Ledger, WorkerHarness

HOUR = timedelta(hours=1)
CHANGEABLE = ("scheduled", "queued", "retrying")


class Grown(Job, kind="tests.grown", payload_version=3):
    """A kind with payload version 3."""

    size: int


class Keyed(Job, kind="tests.keyed_edit", unique_key=lambda job: job.house):
    house: int
    colour: str = "white"


def change(ledger: Ledger, job_id: str, **changes: Any) -> None:
    ledger.db.transaction(edit, "default", job_id, Changes(**changes))


@pytest.mark.parametrize("state", ["scheduled", "retrying"])
def test_run_now_queues_a_scheduled_or_retrying_job(ledger_of: Ledger, state: str) -> None:
    job_id = ledger_of.put(state=state, due_at=clock.now() + HOUR, tries=1)
    ledger_of.db.transaction(run_now, "default", job_id)
    row = ledger_of.row(job_id)
    assert (row.state, row.due_at <= clock.now(), row.tries) == ("queued", True, 1)
    (claim,) = ledger_of.db.transaction(claims.claim, [job_id], WORKER)
    assert claim.id == job_id


@pytest.mark.parametrize("state", STATES)
def test_each_state_allows_a_change_or_names_itself_in_the_conflict(ledger_of: Ledger, state: str) -> None:
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


def test_job_of_another_tenant_is_not_found(ledger_of: Ledger) -> None:
    for job_id in (ledger_of.put(tenant="other"), uuid7(), "x"):
        with pytest.raises(NotFound):
            change(ledger_of, job_id, expires_at=None)
        with pytest.raises(NotFound):
            ledger_of.db.transaction(run_now, "default", job_id)


def test_payload_is_validated_and_stored_in_the_current_version(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(kind=Grown.kind, payload={"old": 1}, payload_version=1)
    for wrong in ({}, {"size": "x"}, {"size": 1, "more": 1}):
        with pytest.raises(InvalidInput):
            change(ledger_of, job_id, payload=wrong)
    change(ledger_of, job_id, payload={"size": 4})
    assert (ledger_of.row(job_id).payload, ledger_of.row(job_id).payload_version) == ({"size": 4}, 3)


def test_payload_with_another_unique_key_is_a_conflict(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(kind=Keyed.kind, payload={"house": 1}, unique_key="1")
    change(ledger_of, job_id, payload={"house": 1, "colour": "red"})
    with pytest.raises(Conflict, match="another unique key"):
        change(ledger_of, job_id, payload={"house": 2})
    assert ledger_of.row(job_id).payload == {"house": 1, "colour": "red"}


def test_priority_outside_its_bounds_is_refused(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    change(ledger_of, job_id, priority=-7)
    with pytest.raises(InvalidInput, match="priority"):
        change(ledger_of, job_id, priority=101)
    assert ledger_of.row(job_id).priority == -7


def test_payload_of_an_unknown_kind_is_refused(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(kind="shop.unheard_of")
    with pytest.raises(InvalidInput, match="does not know the kind"):
        change(ledger_of, job_id, payload={})


def test_due_time_is_moved_later_and_earlier(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(state="scheduled", due_at=clock.now() + HOUR)
    change(ledger_of, job_id, due_at=clock.now() + 2 * HOUR)
    row = ledger_of.row(job_id)
    assert (row.state, row.due_at > clock.now() + HOUR) == ("scheduled", True)
    change(ledger_of, job_id, due_at=clock.now() - HOUR)
    assert ledger_of.row(job_id).state == "queued"


def test_queued_job_cannot_be_put_off(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    with pytest.raises(Conflict, match="cannot be postponed"):
        change(ledger_of, job_id, due_at=clock.now() + HOUR)
    change(ledger_of, job_id, due_at=clock.now() - HOUR)
    assert ledger_of.row(job_id).state == "queued"


def test_expiry_is_set_and_removed(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    change(ledger_of, job_id, expires_at=clock.now() - HOUR)
    assert ledger_of.db.transaction(claims.claim, [job_id], WORKER) == []
    change(ledger_of, job_id, expires_at=None)
    assert len(ledger_of.db.transaction(claims.claim, [job_id], WORKER)) == 1


def test_concurrent_edit_and_claim_agree_on_the_payload(ledger_of: Ledger) -> None:
    """Either the claim sees the new payload, or the edit is a conflict."""
    for _ in range(15):
        job_id = ledger_of.put(payload={"number": 1})
        claimed: list[claims.Claim] = []
        results: list[str] = []
        both = threading.Barrier(2)

        def claim(job_id: str = job_id, into: list[claims.Claim] = claimed, both: threading.Barrier = both) -> None:
            both.wait(10)
            into.extend(ledger_of.db.transaction(claims.claim, [job_id], WORKER))

        def alter(job_id: str = job_id, results: list[str] = results, both: threading.Barrier = both) -> None:
            both.wait(10)
            try:
                change(ledger_of, job_id, payload={"number": 2})
                results.append("changed")
            except Conflict:
                results.append("late")

        threads = [threading.Thread(target=act) for act in (claim, alter)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        (taken,) = claimed
        assert (taken.payload["number"], results) in ((2, ["changed"]), (1, ["late"]))
        assert ledger_of.row(job_id).payload == taken.payload


def test_job_after_run_now_is_taken_by_a_worker(harness: WorkerHarness) -> None:
    """The job goes through Redis and a relay, like every other."""
    (job_id,) = harness.enqueue(Chore(), due_at=clock.now() + HOUR)
    harness.ledger.db.transaction(run_now, "default", job_id)
    Relay().tick()
    (run,) = harness.take()
    assert run.claim.id == job_id
