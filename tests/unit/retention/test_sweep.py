"""What ages out goes, in batches; what is still needed stays. What should not be is found and mended."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, ids
from app.core.db import database
from app.core.errors import Stale
from app.jobs.ledger import claims, commands, workers
from app.jobs.ledger.removal import delete_jobs
from app.jobs.models import (
    AttemptRow,
    DebouncedRow,
    IdempotencyRow,
    JobLogRow,
    JobRow,
    ScheduleRow,
    ScheduleTickRow,
    ThrottleRow,
)
from app.jobs.schedules import store
from app.jobs.schedules.store import Plan
from app.jobs.worker.progress import Progress, Teller
from app.metrics import operations, requests
from app.metrics.models import OperationMetric, RequestMetric
from app.metrics.operations import OperationStep
from app.metrics.requests import RequestTiming
from app.retention import ledger_check
from app.retention.check_jobs import check_ledger
from app.retention.policy import Policy
from app.retention.sweep import delete_before, sweep
from app.search.index.write import touch_document
from app.search.models import IndexChange
from app.tenants import audit
from app.tenants.models import AuditEntry
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import WORKER, Chore, Ledger

DAY = timedelta(days=1)


@pytest.fixture
def house(spine_env: SettingsEnv) -> Ledger:
    made = Ledger(database())
    made.worker()
    made.db.transaction(_empty)
    return made


def _empty(session: Session) -> None:
    for table in (AuditEntry, IdempotencyRow, JobLogRow, IndexChange, RequestMetric, OperationMetric):
        session.execute(sa.delete(table))


def _claimed(house: Ledger) -> Progress:
    """The job that does it, under way."""
    (claim,) = house.db.transaction(claims.claim, [house.put()], WORKER)
    return Progress(claim, Teller(lambda claim, snapshot: None))


def _ended(house: Ledger, days: float, state: str = "succeeded", **more: Any) -> str:
    """A job that was made and ended so many days ago."""
    at = clock.now() - days * DAY
    job_id = ids.first_uuid7(at)[:14] + ids.uuid7()[14:]
    house.put(id=job_id, state=state, created_at=at, finished_at=at, **more)
    return job_id


def _left(house: Ledger) -> set[str]:
    return set(house.db.read(lambda session: list(session.scalars(sa.select(JobRow.id)))))


def _count(house: Ledger, table: Any) -> int:
    return house.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def test_the_settings_say_how_long(house: Ledger, spine_env: SettingsEnv) -> None:
    now = clock.now()
    policy = Policy.at(now)
    assert (policy.jobs, policy.failed_jobs) == (now - 30 * DAY, now - 90 * DAY)
    assert (policy.request_metrics, policy.operation_metrics) == (now - 90 * DAY, now - 90 * DAY)
    spine_env(job_days=7, failed_job_days=0, metrics_days=5)
    assert (Policy.at(now).jobs, Policy.at(now).failed_jobs) == (now - 7 * DAY, None)
    assert (Policy.at(now).request_metrics, Policy.at(now).operation_metrics) == (now - 5 * DAY, now - 5 * DAY)


def test_old_jobs_go_with_all_that_hangs_on_them_and_failed_ones_later(house: Ledger) -> None:
    old, cancelled, failed = _ended(house, 31), _ended(house, 31, "cancelled"), _ended(house, 91, "failed")
    young, kept = _ended(house, 29), _ended(house, 89, "failed")
    long = house.put(state="succeeded", id=ids.first_uuid7(clock.now() - 99 * DAY), finished_at=clock.now())
    waiting = house.put(state="scheduled", id=ids.first_uuid7(clock.now() - 98 * DAY))
    for job_id in (old, young):
        attempt = AttemptRow(job_id=job_id, fence=1, outcome="succeeded")
        line = JobLogRow(
            job_id=job_id, fence=1, attempt=1, at=clock.now(), level="info", logger="x", event="e", fields={}
        )
        house.db.transaction(Session.add_all, [attempt, line])
    progress = _claimed(house)
    swept = asyncio.run(sweep(progress))
    assert swept["deleted"]["jobs"] == 3
    assert _left(house) == {young, kept, long, waiting, progress.claim.id}
    assert not _left(house) & {old, cancelled, failed}
    assert (_count(house, AttemptRow), _count(house, JobLogRow)) == (1, 1)


def test_jobs_go_in_batches_behind_each_other(house: Ledger) -> None:
    old = sorted(_ended(house, 40) for _ in range(7))
    _ended(house, 40, "failed")
    policy = Policy.at(clock.now())
    first = house.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, after="", limit=3)
    second = house.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, after=first[-1], limit=3)
    third = house.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, after=second[-1], limit=3)
    assert [first, second, third] == [old[:3], old[3:6], old[6:]]


def test_children_stay_until_their_parent_has_ended(house: Ledger) -> None:
    parent = house.put(state="waiting")
    child = _ended(house, 40, parent_id=parent)
    policy = Policy.at(clock.now())
    assert house.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, limit=500) == []
    house.db.transaction(commands.cancel, "default", parent)
    assert house.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, limit=500) == [child]


def test_everything_else_has_its_age(house: Ledger) -> None:
    now = clock.now()
    schedule_id = house.db.transaction(store.create, "default", "s", Plan(Chore.kind, cron="* * * * *")).id

    def put(session: Any) -> None:
        for days, outcome in ((40, "started"), (40, "waiting"), (3, "started")):
            at = now - days * DAY - timedelta(seconds=outcome == "waiting")
            session.add(ScheduleTickRow(schedule_id=schedule_id, tick_at=at, outcome=outcome, written_at=at))
        for days in (500, 3):
            audit.record(session, tenant="default", actor="a", action="x", subject="y", request_id=None)
            session.flush()
            newest = sa.select(sa.func.max(AuditEntry.id)).scalar_subquery()
            session.execute(sa.update(AuditEntry).where(AuditEntry.id == newest).values(at=now - days * DAY))
        for key, hours in (("old", 25), ("new", 1)):
            at = now - timedelta(hours=hours)
            session.add(IdempotencyRow(tenant="t", key=key, request_hash="h", created_at=at))
        for key, free_at in (("free", now - DAY), ("taken", now + DAY)):
            row = ThrottleRow(tenant="t", kind="k", unique_key=key, job_id=ids.uuid7(), free_at=free_at)
            session.add(row)
        touch_document(session, tenant="default", document_id=1)
        session.execute(sa.update(IndexChange).values(at=now - 8 * DAY))

    house.db.transaction(put)
    deleted = asyncio.run(sweep(_claimed(house)))["deleted"]
    assert deleted == {
        "jobs": 0, "log_lines": 0, "schedule_ticks": 1, "audit_entries": 1, "idempotency_keys": 1, "throttles": 1,
        "deliveries": 0, "request_metrics": 0, "operation_metrics": 0, "scraped_pages": 0,
        "change_events": 0, "changes": 1, "blobs": 0,
    }  # fmt: skip
    assert [_count(house, table) for table in (ScheduleTickRow, AuditEntry, IdempotencyRow, ThrottleRow)] == [
        2,
        1,
        1,
        1,
    ]


def test_metrics_go_after_their_days(house: Ledger) -> None:
    """All of them by one setting, however many there are."""
    now = clock.now()

    def put(session: Session) -> None:
        for days, count in ((91, 3), (90.1, 600), (89, 2)):
            at = now - days * DAY
            timing = RequestTiming(at, None, "GET", "/api/jobs", "/api/jobs", 200, 1.5, "r", None)
            requests.write(session, [timing] * count)
            operations.write(session, [OperationStep("embedding", "embed_batch", 2.0)] * count, tenant="default", at=at)

    house.db.transaction(put)
    deleted = asyncio.run(sweep(_claimed(house)))["deleted"]
    assert (deleted["request_metrics"], deleted["operation_metrics"]) == (603, 603)
    assert (_count(house, RequestMetric), _count(house, OperationMetric)) == (2, 2)


def test_rows_go_the_oldest_first_and_a_few_at_a_time(house: Ledger) -> None:
    now = clock.now()
    rows = [IdempotencyRow(tenant="t", key=f"{n}", request_hash="h", created_at=now - n * DAY) for n in range(1, 8)]
    house.db.transaction(lambda session: session.add_all(rows))
    column = IdempotencyRow.created_at
    gone = [house.db.transaction(delete_before, now - 2 * DAY, column=column, limit=2) for _ in range(4)]
    assert gone == [2, 2, 1, 0]
    assert _count(house, IdempotencyRow) == 2


def test_a_sweep_that_has_lost_its_job_deletes_nothing(house: Ledger) -> None:
    old = _ended(house, 40)
    progress = _claimed(house)
    house.db.transaction(workers.mark_dead, WORKER, "killed")
    with pytest.raises(Stale):
        asyncio.run(sweep(progress))
    assert old in _left(house)


# The ledger's own check


def _check(house: Ledger) -> dict[str, Any]:
    progress = _claimed(house)
    result = asyncio.run(check_ledger(progress))
    assert result["checks"] == len(ledger_check.CHECKS)
    found: dict[str, Any] = result["found"]
    house.db.transaction(lambda s: s.execute(sa.delete(JobRow).where(JobRow.id == progress.claim.id)))
    return found


def test_a_sound_ledger_has_nothing_to_mend(house: Ledger) -> None:
    for state in ("queued", "waiting", "scheduled", "retrying"):
        house.put(state=state)
    _ended(house, 1)
    house.put(admitted_at=clock.now())
    house.put(state="running", worker_id=WORKER, fence=1, admitted_at=clock.now())
    house.db.transaction(store.create, "default", "s", Plan(Chore.kind, every_s=60))
    assert _check(house) == {}


def _late() -> datetime:
    return clock.now() - timedelta(hours=1)


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "workers_gone_with_running_jobs": (
        {"state": "running", "worker_id": ids.uuid7(), "fence": 1, "claimed_at": clock.now()},
        {"state": "queued"},
    ),
    "running_without_worker": ({"state": "running", "fence": 1}, {"state": "running"}),
    "ended_without_time": ({"state": "failed"}, {"state": "failed"}),
    "open_with_time_of_end": ({"state": "queued", "finished_at": clock.now()}, {"finished_at": None}),
    "admitted_but_not_queued": ({"state": "retrying", "admitted_at": clock.now()}, {"admitted_at": None}),
    "waiting_for_no_child": (
        {"state": "waiting", "children": 3, "open_children": 3, "failed_children": 3},
        {"state": "waiting", "open_children": 0, "failed_children": 0},
    ),
    "due_for_long": ({"state": "scheduled", "due_at": _late()}, {"state": "queued"}),
    "expired_for_long": ({"state": "queued", "expires_at": _late()}, {"state": "failed", "error_code": "expired"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_told_and_mended(house: Ledger, name: str) -> None:
    values, after = FAULTS[name]
    job_id = house.put(**values)
    found = _check(house)
    assert found.keys() == {name}
    assert found[name]["count"] == 1
    assert found[name]["examples"] == [values.get("worker_id", job_id)]
    row = house.row(job_id)
    assert {column: getattr(row, column) for column in after} == after
    mended = name != "running_without_worker"
    assert found[name]["mended"] == mended
    if name == "ended_without_time":
        assert row.finished_at is not None
    assert _check(house).keys() == (set() if mended else {name})


def test_a_parent_whose_child_is_open_waits_on(house: Ledger) -> None:
    parents = [house.put(state="waiting", children=1, open_children=1) for _ in range(2)]
    house.put(state="failed", finished_at=clock.now(), parent_id=parents[0])
    house.put(state="retrying", parent_id=parents[1])
    assert _check(house)["waiting_for_no_child"]["examples"] == [parents[0]]
    counts = [(house.row(parent).open_children, house.row(parent).failed_children) for parent in parents]
    assert counts == [(0, 1), (1, 0)]


def test_a_schedule_without_a_plan_is_planned_unless_it_is_paused(house: Ledger) -> None:
    made = [house.db.transaction(store.create, "default", f"s{n}", Plan(Chore.kind, every_s=60)).id for n in range(2)]
    house.db.transaction(lambda s: s.execute(sa.update(ScheduleRow).values(next_at=None)))
    house.db.transaction(store.pause, "default", made[1])
    assert _check(house) == {"schedules_without_plan": {"count": 1, "examples": [str(made[0])], "mended": True}}
    planned = house.db.read(lambda session: session.get(ScheduleRow, made[0]))
    assert planned is not None
    assert planned.next_at is not None


def test_a_payload_kept_for_an_ended_job_goes(house: Ledger) -> None:
    jobs = [house.put(state="running", worker_id=WORKER, fence=1), _ended(house, 1)]
    kept = {"payload": {}, "payload_version": 1, "since_at": clock.now(), "due_at": clock.now()}
    house.db.transaction(Session.add_all, [DebouncedRow(job_id=job_id, **kept) for job_id in jobs])
    assert _check(house) == {"debounced_for_ended_jobs": {"count": 1, "examples": [jobs[1]], "mended": True}}
    assert _count(house, DebouncedRow) == 1


def test_every_check_has_a_test() -> None:
    assert ledger_check.CHECKS.keys() - FAULTS.keys() == {"schedules_without_plan", "debounced_for_ended_jobs"}
