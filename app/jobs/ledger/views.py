"""Views of jobs as dictionaries in the shapes of the API, and the filters of lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.core.errors import NotFound
from app.core.ids import is_uuid, prefix_range
from app.jobs.enqueued import EnqueuedJob
from app.jobs.models import AttemptRow, JobRow, WorkerRow
from app.jobs.states import PROGRESS_FIELDS, attempt_number

# The fingerprint of failures that have none.
NAMELESS = "none"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Conditions for a list of jobs; None means all. `before_id` is the last id of the page before.

    only_kinds: kinds that the caller may see, names or prefixes with `*`.
    """

    states: Sequence[str] | None = None
    kind: str | None = None
    queue: str | None = None
    document_id: int | None = None
    error_code: str | None = None
    fingerprint: str | None = None
    discarded: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before_id: str | None = None
    only_kinds: Sequence[str] | None = None
    parent_id: str | None = None
    id_prefix: str | None = None


def job_view(job: JobRow | EnqueuedJob) -> dict[str, Any]:
    """Return a job as in lists, in the answer to a request for work, and in the snapshot of its events."""
    if isinstance(job, EnqueuedJob):
        return _row_view(job.existing or _NewRow(job))
    return _row_view(job)


class _NewRow:
    """The columns of a new job as a view reads them; an ORM object would cost ten times as much."""

    progress = parent_id = claimed_at = started_at = finished_at = cancel_requested_at = None
    error_type = error_message = error_code = None
    tries = 0

    def __init__(self, job: EnqueuedJob) -> None:
        self.__dict__.update(zip(job._fields, job, strict=True))


def _row_view(row: Any) -> dict[str, Any]:
    progress = row.progress or {}
    error = None
    if row.error_type is not None:
        error = {"type": row.error_type, "message": row.error_message, "code": row.error_code}
    return {
        "id": row.id,
        "kind": row.kind,
        "queue": row.queue,
        "tenant": row.tenant,
        "state": row.state,
        "attempt": attempt_number(row.state, row.tries, row.max_tries),
        "max_attempts": row.max_tries,
        "progress": {name: progress.get(name) for name in PROGRESS_FIELDS} | {"seq": progress.get("seq", 0)},
        "document_id": None if row.document_id is None else str(row.document_id),
        "parent_id": row.parent_id,
        "created_at": moment(row.created_at),
        "due_at": moment(row.due_at),
        "claimed_at": moment(row.claimed_at),
        "started_at": moment(row.started_at),
        "finished_at": moment(row.finished_at),
        "cancel_requested_at": moment(row.cancel_requested_at),
        "error": error,
        "request_id": row.request_id,
    }


def get(session: Session, tenant: str, job_id: str, *, lock: bool = False) -> JobRow:
    """Return the job's row. Raises NotFound, also for another tenant's job and for a malformed id.

    With `lock` no other transaction, no claim either, moves it before this one ends.
    """
    row = None
    if is_uuid(job_id):
        row = session.get(JobRow, job_id, with_for_update=lock, populate_existing=lock)
    if row is None or row.tenant != tenant:
        raise NotFound(f"Job {job_id} not found", code="job_not_found")
    return row


def get_many(session: Session, ids: Sequence[str]) -> list[JobRow]:
    """Return the rows of these ids that exist, of any tenant, in no order; for programs that know the ids."""
    return list(session.scalars(sa.select(JobRow).where(JobRow.id.in_(ids))))


def conditions(tenant: str, criteria: JobFilter) -> list[sa.ColumnElement[bool]]:
    """Return SQL conditions for the tenant's jobs that pass the filter."""
    candidates = [
        criteria.states is not None and JobRow.state.in_(criteria.states or ()),
        criteria.kind is not None and JobRow.kind == criteria.kind,
        criteria.queue is not None and JobRow.queue == criteria.queue,
        criteria.document_id is not None and JobRow.document_id == criteria.document_id,
        criteria.error_code is not None and JobRow.error_code == criteria.error_code,
        criteria.fingerprint is not None and _of_fault(criteria.fingerprint),
        criteria.discarded is not None and (JobRow.discarded_at.is_not(None) == criteria.discarded),
        criteria.created_after is not None and JobRow.created_at >= criteria.created_after,
        criteria.created_before is not None and JobRow.created_at < criteria.created_before,
        criteria.parent_id is not None and JobRow.parent_id == criteria.parent_id,
        criteria.before_id is not None and JobRow.id < criteria.before_id,
        criteria.id_prefix is not None and JobRow.id.between(*prefix_range(criteria.id_prefix)),
        criteria.only_kinds is not None and _of_kinds(criteria.only_kinds or ()),
    ]
    return [JobRow.tenant == tenant, *(condition for condition in candidates if not isinstance(condition, bool))]


def _of_fault(fingerprint: str) -> sa.ColumnElement[bool]:
    return JobRow.fingerprint.is_(None) if fingerprint == NAMELESS else JobRow.fingerprint == fingerprint


def list_jobs(session: Session, tenant: str, criteria: JobFilter, limit: int) -> list[JobRow]:
    """Return jobs, the newest first, at most `limit`."""
    query = sa.select(JobRow).where(*conditions(tenant, criteria)).order_by(JobRow.id.desc()).limit(limit)
    return list(session.scalars(query))


def _of_kinds(names: Sequence[str]) -> sa.ColumnElement[bool]:
    exact = [name for name in names if not name.endswith("*")]
    # Not LIKE, which ignores case on SQLite.
    begun = [sa.func.substr(JobRow.kind, 1, len(name) - 1) == name[:-1] for name in names if name.endswith("*")]
    return sa.or_(JobRow.kind.in_(exact), *begun)


def latest_of_document(session: Session, tenant: str, document_id: int) -> JobRow:
    """Return the last job about a document. Raises NotFound if there is none."""
    query = sa.select(JobRow).where(JobRow.tenant == tenant, JobRow.document_id == document_id)
    row = session.scalars(query.order_by(JobRow.id.desc()).limit(1)).one_or_none()
    if row is None:
        raise NotFound(f"Document {document_id} has no job", code="document_not_found")
    return row


def job_detail(session: Session, row: JobRow) -> dict[str, Any]:
    """Return one job with payload, result, all attempts (the running one last), and counts of its children."""
    attempts = list(
        session.scalars(sa.select(AttemptRow).where(AttemptRow.job_id == row.id).order_by(AttemptRow.fence))
    )
    if row.state == "running":
        attempts.append(
            AttemptRow(
                job_id=row.id,
                fence=row.fence,
                worker_id=row.worker_id,
                claimed_at=row.claimed_at,
                started_at=row.started_at,
                outcome="running",
                repeats=1,
            )
        )
    known = {attempt.worker_id for attempt in attempts if attempt.worker_id}
    workers = {worker.id: worker for worker in session.scalars(sa.select(WorkerRow).where(WorkerRow.id.in_(known)))}
    total, failed, still_open = row.children, row.failed_children, row.open_children
    return job_view(row) | {
        "payload": row.payload,
        "priority": row.priority,
        "expires_at": moment(row.expires_at),
        "unique_key": row.unique_key,
        "webhook_url": row.webhook_url,
        "traceparent": row.traceparent,
        "result": row.result,
        "fingerprint": row.fingerprint,
        "discarded_at": moment(row.discarded_at),
        "attempts": [_attempt_view(attempt, workers.get(attempt.worker_id or "")) for attempt in attempts],
        "children": {
            "total": total,
            "succeeded": total - failed - still_open,
            "failed": failed,
            "open": still_open,
            "rule": row.family_rule,
        },
    }


def _attempt_view(attempt: AttemptRow, worker: WorkerRow | None) -> dict[str, Any]:
    error = None
    if attempt.error_type is not None:
        error = {"type": attempt.error_type, "message": attempt.error_message, "traceback": attempt.traceback}
    where = None
    if attempt.worker_id is not None:
        name = worker.host.split("|")[0] if worker else None
        where = {"id": attempt.worker_id, "host": name, "pid": worker.pid if worker else None}
    return {
        "fence": attempt.fence,
        "worker": where,
        "claimed_at": moment(attempt.claimed_at),
        "started_at": moment(attempt.started_at),
        "finished_at": moment(attempt.finished_at),
        "outcome": attempt.outcome,
        "repeats": attempt.repeats,
        "error": error,
    }
