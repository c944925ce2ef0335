"""A job as people see it: plain dictionaries, the shapes of the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.core.errors import NotFound
from app.core.ids import is_uuid
from app.jobs.events.publish import FIELDS, attempt_number
from app.jobs.models import AttemptRow, JobRow, WorkerRow

# The fingerprint of failures that have none.
NAMELESS = "none"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; None means all. `before_id` is the last id of the page before.

    only_kinds: what the caller may see at all, names or beginnings with `*`.
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


def job_view(row: JobRow) -> dict[str, Any]:
    """A job in lists, in the answer to a request for work, and as the body of its events' snapshot."""
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
        "progress": {name: progress.get(name) for name in FIELDS} | {"seq": progress.get("seq", 0)},
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
    """The job's row. Raises NotFound, also for another tenant's and for what is no id.

    With `lock` nobody else, no claim either, moves it before this transaction ends.
    """
    row = None
    if is_uuid(job_id):
        row = session.get(JobRow, job_id, with_for_update=lock, populate_existing=lock)
    if row is None or row.tenant != tenant:
        raise NotFound(f"Job {job_id} not found", code="job_not_found")
    return row


def get_many(session: Session, ids: Sequence[str]) -> list[JobRow]:
    """The rows of these ids that exist, in no order, of any tenant: for programs that know them already."""
    return list(session.scalars(sa.select(JobRow).where(JobRow.id.in_(ids))))


def conditions(tenant: str, wanted: JobFilter) -> list[sa.ColumnElement[bool]]:
    """What rows of the tenant must be for the filter."""
    asked = [
        wanted.states is not None and JobRow.state.in_(wanted.states or ()),
        wanted.kind is not None and JobRow.kind == wanted.kind,
        wanted.queue is not None and JobRow.queue == wanted.queue,
        wanted.document_id is not None and JobRow.document_id == wanted.document_id,
        wanted.error_code is not None and JobRow.error_code == wanted.error_code,
        wanted.fingerprint is not None and _of_fault(wanted.fingerprint),
        wanted.discarded is not None and (JobRow.discarded_at.is_not(None) == wanted.discarded),
        wanted.created_after is not None and JobRow.created_at >= wanted.created_after,
        wanted.created_before is not None and JobRow.created_at < wanted.created_before,
        wanted.parent_id is not None and JobRow.parent_id == wanted.parent_id,
        wanted.before_id is not None and JobRow.id < wanted.before_id,
        wanted.only_kinds is not None and _of_kinds(wanted.only_kinds or ()),
    ]
    return [JobRow.tenant == tenant, *(one for one in asked if not isinstance(one, bool))]


def _of_fault(fingerprint: str) -> sa.ColumnElement[bool]:
    return JobRow.fingerprint.is_(None) if fingerprint == NAMELESS else JobRow.fingerprint == fingerprint


def list_jobs(session: Session, tenant: str, wanted: JobFilter, limit: int) -> list[JobRow]:
    """The newest first, at most `limit`."""
    query = sa.select(JobRow).where(*conditions(tenant, wanted)).order_by(JobRow.id.desc()).limit(limit)
    return list(session.scalars(query))


def _of_kinds(names: Sequence[str]) -> sa.ColumnElement[bool]:
    exact = [name for name in names if not name.endswith("*")]
    # Not LIKE, for which SQLite holds capitals to be the same.
    begun = [sa.func.substr(JobRow.kind, 1, len(name) - 1) == name[:-1] for name in names if name.endswith("*")]
    return sa.or_(JobRow.kind.in_(exact), *begun)


def latest_of_document(session: Session, tenant: str, document_id: int) -> JobRow:
    """The last job about a document. Raises NotFound where there is none."""
    query = sa.select(JobRow).where(JobRow.tenant == tenant, JobRow.document_id == document_id)
    row = session.scalars(query.order_by(JobRow.id.desc()).limit(1)).one_or_none()
    if row is None:
        raise NotFound(f"Document {document_id} has no job", code="document_not_found")
    return row


def job_detail(session: Session, row: JobRow) -> dict[str, Any]:
    """A job alone: with payload, result, every attempt (the one under way last), and its children counted."""
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
        "error": error,
    }
