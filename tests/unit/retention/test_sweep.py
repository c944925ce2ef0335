"""Retention deletes old rows in batches; the ledger check finds and repairs faults."""

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
from app.jobs.worker.progress import Progress, ProgressPublisher
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
from app.tenants import audit, sessions
from app.tenants.models import AuditEntry
from tests.support.databases import SettingsEnv
from tests.unit.jobs.conftest import WORKER, Chore, Ledger

DAY = timedelta(days=1)


@pytest.fixture
def ledger(spine_env: SettingsEnv) -> Ledger:
    made = Ledger(database())
    made.worker()
    made.db.transaction(_empty)
    return made


def _empty(session: Session) -> None:
    for table in (AuditEntry, IdempotencyRow, JobLogRow, IndexChange, RequestMetric, OperationMetric):
        session.execute(sa.delete(table))


def _claim_job(ledger: Ledger) -> Progress:
    """Return the progress of a running job."""
    (claim,) = ledger.db.transaction(claims.claim, [ledger.put()], WORKER)
    return Progress(claim, ProgressPublisher(lambda claim, snapshot: None))


def _put_ended(ledger: Ledger, days: float, state: str = "succeeded", **more: Any) -> str:
    """Insert a job created and ended `days` ago; return its id."""
    at = clock.now() - days * DAY
    job_id = ids.first_uuid7(at)[:14] + ids.uuid7()[14:]
    ledger.put(id=job_id, state=state, created_at=at, finished_at=at, **more)
    return job_id


def _job_ids(ledger: Ledger) -> set[str]:
    return set(ledger.db.read(lambda session: list(session.scalars(sa.select(JobRow.id)))))


def _count(ledger: Ledger, table: Any) -> int:
    return ledger.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def test_policy_follows_the_settings(ledger: Ledger, spine_env: SettingsEnv) -> None:
    now = clock.now()
    policy = Policy.at(now)
    assert (policy.jobs, policy.failed_jobs) == (now - 30 * DAY, now - 90 * DAY)
    assert (policy.request_metrics, policy.operation_metrics) == (now - 90 * DAY, now - 90 * DAY)
    spine_env(job_days=7, failed_job_days=0, metrics_days=5)
    assert (Policy.at(now).jobs, Policy.at(now).failed_jobs) == (now - 7 * DAY, None)
    assert (Policy.at(now).request_metrics, Policy.at(now).operation_metrics) == (now - 5 * DAY, now - 5 * DAY)


def test_sweep_deletes_old_jobs_with_their_rows_and_failed_ones_later(ledger: Ledger) -> None:
    old, cancelled, failed = (
        _put_ended(ledger, 31),
        _put_ended(ledger, 31, "cancelled"),
        _put_ended(ledger, 91, "failed"),
    )
    young, young_failed = _put_ended(ledger, 29), _put_ended(ledger, 89, "failed")
    long = ledger.put(state="succeeded", id=ids.first_uuid7(clock.now() - 99 * DAY), finished_at=clock.now())
    waiting = ledger.put(state="scheduled", id=ids.first_uuid7(clock.now() - 98 * DAY))
    for job_id in (old, young):
        attempt = AttemptRow(job_id=job_id, fence=1, outcome="succeeded")
        line = JobLogRow(
            job_id=job_id, fence=1, attempt=1, at=clock.now(), level="info", logger="x", event="e", fields={}
        )
        ledger.db.transaction(Session.add_all, [attempt, line])
    progress = _claim_job(ledger)
    swept = asyncio.run(sweep(progress))
    assert swept["deleted"]["jobs"] == 3
    assert _job_ids(ledger) == {young, young_failed, long, waiting, progress.claim.id}
    assert not _job_ids(ledger) & {old, cancelled, failed}
    assert (_count(ledger, AttemptRow), _count(ledger, JobLogRow)) == (1, 1)


def test_jobs_are_deleted_in_consecutive_batches(ledger: Ledger) -> None:
    old = sorted(_put_ended(ledger, 40) for _ in range(7))
    _put_ended(ledger, 40, "failed")
    policy = Policy.at(clock.now())
    first = ledger.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, after="", limit=3)
    second = ledger.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, after=first[-1], limit=3)
    third = ledger.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, after=second[-1], limit=3)
    assert [first, second, third] == [old[:3], old[3:6], old[6:]]


def test_children_stay_until_their_parent_ends(ledger: Ledger) -> None:
    parent = ledger.put(state="waiting")
    child = _put_ended(ledger, 40, parent_id=parent)
    policy = Policy.at(clock.now())
    assert ledger.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, limit=500) == []
    ledger.db.transaction(commands.cancel, "default", parent)
    assert ledger.db.transaction(delete_jobs, policy.jobs, policy.failed_jobs, limit=500) == [child]


def test_sweep_deletes_every_other_table_by_age(ledger: Ledger) -> None:
    now = clock.now()
    schedule_id = ledger.db.transaction(store.create, "default", "s", Plan(Chore.kind, cron="* * * * *")).id

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
        for ends_at in (now - timedelta(minutes=1), now + DAY):
            browser, _ = sessions.create(
                session, tenant="t", key_id=None, secret_hash=b"s", address="127.0.0.1", agent="tests"
            )
            browser.ends_at = ends_at
        touch_document(session, tenant="default", document_id=1)
        session.execute(sa.update(IndexChange).values(at=now - 8 * DAY))

    ledger.db.transaction(put)
    deleted = asyncio.run(sweep(_claim_job(ledger)))["deleted"]
    assert deleted == {
        "jobs": 0, "log_lines": 0, "schedule_ticks": 1, "audit_entries": 1, "idempotency_keys": 1, "sessions": 1,
        "throttles": 1,
        "deliveries": 0, "request_metrics": 0, "operation_metrics": 0, "scraped_pages": 0,
        "change_events": 0, "stranger_metrics": 0, "crawls": 0, "changes": 1, "surplus": 0, "blobs": 0,
    }  # fmt: skip
    assert [_count(ledger, table) for table in (ScheduleTickRow, AuditEntry, IdempotencyRow, ThrottleRow)] == [
        2,
        1,
        1,
        1,
    ]


def test_sweep_deletes_old_metrics(ledger: Ledger) -> None:
    """One setting covers both tables; a sweep deletes more than one batch."""
    now = clock.now()

    def put(session: Session) -> None:
        for days, count in ((91, 3), (90.1, 600), (89, 2)):
            at = now - days * DAY
            timing = RequestTiming(at, None, "GET", "/api/jobs", "/api/jobs", 200, 1.5, "r", None)
            requests.write(session, [timing] * count)
            operations.write(session, [OperationStep("embedding", "embed_batch", 2.0)] * count, tenant="default", at=at)

    ledger.db.transaction(put)
    deleted = asyncio.run(sweep(_claim_job(ledger)))["deleted"]
    assert (deleted["request_metrics"], deleted["operation_metrics"]) == (603, 603)
    assert (_count(ledger, RequestMetric), _count(ledger, OperationMetric)) == (2, 2)


def test_delete_before_deletes_the_oldest_rows_in_batches(ledger: Ledger) -> None:
    now = clock.now()
    rows = [IdempotencyRow(tenant="t", key=f"{n}", request_hash="h", created_at=now - n * DAY) for n in range(1, 8)]
    ledger.db.transaction(lambda session: session.add_all(rows))
    column = IdempotencyRow.created_at
    deleted = [ledger.db.transaction(delete_before, now - 2 * DAY, column=column, limit=2) for _ in range(4)]
    assert deleted == [2, 2, 1, 0]
    assert _count(ledger, IdempotencyRow) == 2


def test_sweep_with_a_lost_claim_deletes_nothing(ledger: Ledger) -> None:
    old = _put_ended(ledger, 40)
    progress = _claim_job(ledger)
    ledger.db.transaction(workers.mark_dead, WORKER, "killed")
    with pytest.raises(Stale):
        asyncio.run(sweep(progress))
    assert old in _job_ids(ledger)


# The ledger check


def _check(ledger: Ledger) -> dict[str, Any]:
    progress = _claim_job(ledger)
    result = asyncio.run(check_ledger(progress))
    assert result["checks"] == len(ledger_check.CHECKS)
    faults: dict[str, Any] = result["found"]
    ledger.db.transaction(lambda s: s.execute(sa.delete(JobRow).where(JobRow.id == progress.claim.id)))
    return faults


def test_check_of_a_sound_ledger_finds_nothing(ledger: Ledger) -> None:
    for state in ("queued", "waiting", "scheduled", "retrying"):
        ledger.put(state=state)
    _put_ended(ledger, 1)
    ledger.put(admitted_at=clock.now())
    ledger.put(state="running", worker_id=WORKER, fence=1, admitted_at=clock.now())
    ledger.db.transaction(store.create, "default", "s", Plan(Chore.kind, every_s=60))
    assert _check(ledger) == {}


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
def test_fault_is_reported_and_repaired(ledger: Ledger, name: str) -> None:
    values, after = FAULTS[name]
    job_id = ledger.put(**values)
    faults = _check(ledger)
    assert faults.keys() == {name}
    assert faults[name]["count"] == 1
    assert faults[name]["examples"] == [values.get("worker_id", job_id)]
    row = ledger.row(job_id)
    assert {column: getattr(row, column) for column in after} == after
    is_repaired = name != "running_without_worker"
    assert faults[name]["mended"] == is_repaired
    if name == "ended_without_time":
        assert row.finished_at is not None
    assert _check(ledger).keys() == (set() if is_repaired else {name})


def test_parent_with_an_open_child_keeps_waiting(ledger: Ledger) -> None:
    parents = [ledger.put(state="waiting", children=1, open_children=1) for _ in range(2)]
    ledger.put(state="failed", finished_at=clock.now(), parent_id=parents[0])
    ledger.put(state="retrying", parent_id=parents[1])
    assert _check(ledger)["waiting_for_no_child"]["examples"] == [parents[0]]
    counts = [(ledger.row(parent).open_children, ledger.row(parent).failed_children) for parent in parents]
    assert counts == [(0, 1), (1, 0)]


def test_schedule_without_a_next_time_is_planned_unless_paused(ledger: Ledger) -> None:
    made = [ledger.db.transaction(store.create, "default", f"s{n}", Plan(Chore.kind, every_s=60)).id for n in range(2)]
    ledger.db.transaction(lambda s: s.execute(sa.update(ScheduleRow).values(next_at=None)))
    ledger.db.transaction(store.pause, "default", made[1])
    assert _check(ledger) == {"schedules_without_plan": {"count": 1, "examples": [str(made[0])], "mended": True}}
    planned = ledger.db.read(lambda session: session.get(ScheduleRow, made[0]))
    assert planned is not None
    assert planned.next_at is not None


def test_debounced_payload_of_an_ended_job_is_deleted(ledger: Ledger) -> None:
    jobs = [ledger.put(state="running", worker_id=WORKER, fence=1), _put_ended(ledger, 1)]
    values = {"payload": {}, "payload_version": 1, "since_at": clock.now(), "due_at": clock.now()}
    ledger.db.transaction(Session.add_all, [DebouncedRow(job_id=job_id, **values) for job_id in jobs])
    assert _check(ledger) == {"debounced_for_ended_jobs": {"count": 1, "examples": [jobs[1]], "mended": True}}
    assert _count(ledger, DebouncedRow) == 1


def test_every_check_has_a_test() -> None:
    assert ledger_check.CHECKS.keys() - FAULTS.keys() == {"schedules_without_plan", "debounced_for_ended_jobs"}
