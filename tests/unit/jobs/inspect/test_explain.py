"""Why a job is where it is: each reason made to happen, and named."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import clock
from app.core.errors import InvalidInput, NotFound, Unavailable
from app.core.ids import uuid7
from app.jobs.admission import limits
from app.jobs.inspect.explain import explain
from app.jobs.inspect.reason import Services, check_services, span
from app.jobs.ledger import admissions, child_moves, commands, ends, limit_commands, timers, workers
from app.jobs.ledger import claims as book
from app.jobs.models import WorkerRow
from app.jobs.relay.relay import Relay
from app.jobs.states import STATES
from app.jobs.worker.outcome import judge
from tests.support.databases import SettingsEnv
from tests.support.kinds import Paced
from tests.support.processes import free_port
from tests.unit.jobs.conftest import WORKER, Chore, Ledger, WorkerHarness, end_of

HEALTHY = Services()


def why(ledger: Ledger, job_id: str, services: Services = HEALTHY) -> dict[str, Any]:
    explained = ledger.db.read(explain, "default", job_id, services)
    assert explained["message"]
    assert explained["fix"]
    assert explained["state"] == ledger.row(job_id).state
    return explained


def reason(ledger: Ledger, job_id: str, services: Services = HEALTHY) -> str:
    return str(why(ledger, job_id, services)["reason"])


def claim(ledger: Ledger, job_id: str) -> book.Claim:
    (taken,) = ledger.db.transaction(book.claim, [job_id], WORKER)
    return taken


def later(ledger: Ledger, seconds: float = 3600, **values: Any) -> str:
    return ledger.put(due_at=clock.now() + timedelta(seconds=seconds), **values)


def worker_is(ledger: Ledger, **values: Any) -> None:
    ledger.db.transaction(lambda session: session.execute(sa.update(WorkerRow).values(**values)))


def test_unknown_job_and_job_of_another_tenant_have_no_reason(ledger_of: Ledger) -> None:
    theirs = ledger_of.put(tenant="other")
    for job_id in (theirs, uuid7(), "x"):
        with pytest.raises(NotFound):
            ledger_of.db.read(explain, "default", job_id, HEALTHY)


def test_scheduled_waits_for_its_time_or_for_a_relay(ledger_of: Ledger) -> None:
    job_id = later(ledger_of, state="scheduled")
    explained = why(ledger_of, job_id)
    assert (explained["reason"], "60 min from now" in explained["message"]) == ("due_later", True)
    assert job_id in explained["fix"]
    assert reason(ledger_of, later(ledger_of, -1, state="scheduled")) == "due_now"
    assert reason(ledger_of, later(ledger_of, -60, state="scheduled")) == "no_relay"
    assert reason(ledger_of, later(ledger_of, -1, state="scheduled"), Services(relay=False)) == "no_relay"


def test_retrying_names_the_error_and_the_next_try(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    taken = claim(ledger_of, job_id)
    verdict = judge(taken, Unavailable("the house is closed", retry_after_s=600))
    ended = end_of(job_id, 1, "retrying", tries=1, due_at=clock.now() + timedelta(minutes=10))
    ended = ended._replace(error_type=verdict.error_type, error_code=verdict.error_code, error_message="closed")
    ledger_of.db.transaction(ends.finish, [ended])
    explained = why(ledger_of, job_id)
    assert explained["reason"] == "dependency_down"
    assert "Try 1 of 4 failed (Unavailable: closed)" in explained["message"]
    assert reason(ledger_of, later(ledger_of, state="retrying", error_type="E", error_code="e")) == "retry_later"
    assert reason(ledger_of, later(ledger_of, state="retrying")) == "snoozed"
    explained = why(ledger_of, later(ledger_of, state="retrying", kind=Paced.kind))
    assert (explained["reason"], "at most 1 times in 60 min" in explained["message"]) == ("start_rate", True)
    assert reason(ledger_of, later(ledger_of, -60, state="retrying", error_type="E")) == "no_relay"


def test_queued_without_a_worker(ledger_of: Ledger) -> None:
    elsewhere = ledger_of.put(queue="bulk")
    assert reason(ledger_of, elsewhere) == "no_worker"
    here = ledger_of.put()
    assert reason(ledger_of, here) == "about_to_start"
    ledger_of.db.transaction(workers.set_state, WORKER, "paused")
    assert reason(ledger_of, here) == "workers_paused"
    ledger_of.db.transaction(workers.set_state, WORKER, "draining")
    assert "draining" in why(ledger_of, here)["message"]
    worker_is(ledger_of, state="running", beat_at=clock.now() - timedelta(minutes=5))
    assert "no heartbeat" in why(ledger_of, here)["message"]
    ledger_of.db.transaction(workers.mark_dead, WORKER, "gone")
    explained = why(ledger_of, here)
    assert (explained["reason"], explained["fix"]) == ("no_worker", "Start a worker: `millrace worker`.")


@pytest.mark.parametrize(("scope", "name"), [("queue", "default"), ("kind", Chore.kind), ("tenant", "default")])
def test_queued_with_a_pause_or_a_full_limit(ledger_of: Ledger, scope: limits.Scope, name: str) -> None:
    job_id = ledger_of.put()
    ledger_of.db.transaction(limit_commands.pause, scope, name, by="the operator", reason="moving house")
    explained = why(ledger_of, job_id)
    assert explained["reason"] == "paused"
    assert explained["message"] == f"{scope.capitalize()} {name} was paused by the operator: moving house"
    assert f"millrace queues resume {name}" in explained["fix"]
    ledger_of.db.transaction(limit_commands.resume, scope, name)
    assert reason(ledger_of, job_id) == "about_to_start"
    ledger_of.db.transaction(limit_commands.set_limits, scope, name, running_cap=2)
    ledger_of.put_many(2, state="running", worker_id=WORKER, claimed_at=clock.now())
    explained = why(ledger_of, job_id)
    assert (explained["reason"], explained["facts"]["cap"], explained["facts"]["running"]) == ("capped", 2, 2)


def test_queued_during_an_outage_of_redis_or_the_relay(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    assert reason(ledger_of, job_id, Services("not reachable")) == "redis_down"
    assert reason(ledger_of, job_id, Services(relay=False)) == "no_relay"
    admitted = ledger_of.put(admitted_at=clock.now())
    assert reason(ledger_of, admitted, Services(relay=False)) != "no_relay"


def test_queued_behind_others_and_while_all_are_busy(ledger_of: Ledger) -> None:
    ledger_of.put_many(3)
    job_id = ledger_of.put()
    explained = why(ledger_of, job_id)
    assert (explained["reason"], explained["facts"]["jobs_before"], explained["facts"]["slots"]) == (
        "behind_others",
        3,
        8,
    )
    ledger_of.put_many(8, state="running", worker_id=WORKER, claimed_at=clock.now())
    explained = why(ledger_of, job_id)
    assert (explained["reason"], explained["facts"]["busy"]) == ("workers_busy", 8)


def test_queued_after_crashes_waits_for_an_exclusive_claim(ledger_of: Ledger) -> None:
    assert reason(ledger_of, ledger_of.put(crashes=2)) == "runs_alone"


def test_queued_job_parked_because_no_worker_has_its_kind(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(kind="shop.unheard_of")
    ledger_of.db.transaction(admissions.park, [job_id], clock.now() + timedelta(seconds=15))
    explained = why(ledger_of, job_id)
    assert (explained["reason"], "shop.unheard_of" in explained["message"]) == ("kind_unknown", True)


def test_queued_and_expired(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(expires_at=clock.now() - timedelta(seconds=1))
    assert reason(ledger_of, job_id) == "expired"
    assert "relay" in why(ledger_of, job_id, Services(relay=False))["fix"]
    ledger_of.db.transaction(timers.expire, 10)
    assert (reason(ledger_of, job_id), ledger_of.row(job_id).state) == ("expired", "failed")


def test_running_in_each_of_its_phases(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    claim(ledger_of, job_id)
    assert reason(ledger_of, job_id) == "claimed"
    ledger_of.db.transaction(book.mark_started, [(job_id, 1, clock.now())])
    ledger_of.db.transaction(book.snapshot, [(job_id, 1, {"stage": "second", "percent": 40.0})])
    explained = why(ledger_of, job_id)
    assert explained["reason"] == "running"
    assert "in stage second, 40 %" in explained["message"]
    ledger_of.db.transaction(commands.cancel, "default", job_id)
    assert reason(ledger_of, job_id) == "stopping"
    worker_is(ledger_of, beat_at=clock.now() - timedelta(minutes=1))
    assert reason(ledger_of, job_id) == "worker_silent"
    assert "relay" in why(ledger_of, job_id, Services(relay=False))["fix"]
    worker_is(ledger_of, state="dead")
    assert reason(ledger_of, job_id) == "worker_gone"


def test_running_beyond_its_limit(ledger_of: Ledger) -> None:
    long_ago = clock.now() - timedelta(seconds=Chore.time_limit_s + 60)
    job_id = ledger_of.put(state="running", fence=1, worker_id=WORKER, claimed_at=long_ago, started_at=long_ago)
    assert reason(ledger_of, job_id) == "over_time"


def test_waiting_for_children_names_the_first(ledger_of: Ledger) -> None:
    parent = ledger_of.put(state="waiting", open_children=2)
    children = [ledger_of.put(parent_id=parent), ledger_of.put(parent_id=parent, state="scheduled")]
    explained = why(ledger_of, parent)
    assert explained["reason"] == "waits_for_children"
    assert [child["id"] for child in explained["facts"]["children"]] == children
    assert children[0] in explained["fix"]
    childless = ledger_of.put(state="waiting", open_children=1)
    assert reason(ledger_of, childless) == "children_ended"


def test_parent_with_stopping_children_and_failed_parent(ledger_of: Ledger) -> None:
    """By the real moves: one child fails, the rule is broken, the other is cancelled, the parent fails."""
    parent = ledger_of.put(state="waiting", children=2, open_children=2, family_rule="all", family_limit=0)
    first, second = (ledger_of.put(parent_id=parent, child_index=index) for index in range(2))
    claim(ledger_of, first)
    ledger_of.db.transaction(ends.finish, [end_of(first, 1, "failed", parent_id=parent)])
    assert (ledger_of.row(parent).state, reason(ledger_of, parent)) == ("waiting", "children_stopping")
    ledger_of.db.transaction(child_moves.cancel_children)
    assert reason(ledger_of, parent) == "children_ended"
    ledger_of.db.transaction(child_moves.settle)
    explained = why(ledger_of, parent)
    assert (explained["state"], explained["reason"], explained["facts"]["first_failed"]) == (
        "failed",
        "children_failed",
        first,
    )
    assert explained["message"] == "2 of 2 children failed; the rule was all."
    assert first in explained["fix"]
    assert reason(ledger_of, second) == "cancelled_with_parent"


def test_succeeded(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    claim(ledger_of, job_id)
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, "succeeded")])
    assert reason(ledger_of, job_id) == "done"


def test_failed_for_good_after_all_tries_and_discarded(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    verdict = judge(claim(ledger_of, job_id), InvalidInput("no such thing", code="payload"))
    error = {name: getattr(verdict, name) for name in ("error_type", "error_code", "error_message", "fingerprint")}
    ledger_of.db.transaction(ends.finish, [end_of(job_id, 1, "failed", tries=1, **error)])
    explained = why(ledger_of, job_id)
    assert explained["reason"] == "failed"
    assert explained["message"] == "Another try would end the same way; InvalidInput: no such thing"
    assert explained["fix"].startswith("The payload does not fit")
    tried = ledger_of.put(state="failed", tries=4, error_type="E", error_code="odd", error_message="again\nand again")
    explained = why(ledger_of, tried)
    assert explained["message"] == "All 4 tries failed, the last with E: again"
    assert tried in explained["fix"]
    ledger_of.db.transaction(commands.discard, "default", job_id)
    assert reason(ledger_of, job_id) == "discarded"


def test_failed_as_poison(ledger_of: Ledger) -> None:
    job_id = ledger_of.put(state="running", fence=3, crashes=2, worker_id=WORKER, started_at=clock.now())
    ledger_of.db.transaction(ends.free, WORKER, "killed")
    assert (ledger_of.row(job_id).state, reason(ledger_of, job_id)) == ("failed", "poison")


def test_cancelled_on_request_or_with_its_parent(ledger_of: Ledger) -> None:
    job_id = ledger_of.put()
    ledger_of.db.transaction(commands.cancel, "default", job_id)
    assert reason(ledger_of, job_id) == "cancelled"
    parent = ledger_of.put(state="cancelled")
    child = ledger_of.put(state="cancelled", parent_id=parent)
    explained = why(ledger_of, child)
    assert (explained["reason"], explained["facts"]["parent_id"]) == ("cancelled_with_parent", parent)


def test_every_state_has_a_reason(ledger_of: Ledger) -> None:
    for state in STATES:
        why(ledger_of, ledger_of.put(state=state))


def test_a_running_relay_is_seen_in_redis(harness: WorkerHarness) -> None:
    assert check_services() == Services(relay=False)
    Relay().tick()
    assert check_services() == Services()


def test_without_redis_nothing_is_raised(sqlite_url: str, settings_env: SettingsEnv) -> None:
    settings_env(database_url=sqlite_url, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert check_services() == Services("not reachable")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (86400 * 3, "3 days")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert span(seconds) == text
