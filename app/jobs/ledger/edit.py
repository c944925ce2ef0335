"""Changes to a job that no worker has claimed: due time, payload, priority, expiry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import after_commit
from app.core.errors import Conflict, InvalidInput
from app.jobs.admission import push
from app.jobs.definition import Job, definition
from app.jobs.definition_checks import MAX_PRIORITY
from app.jobs.events import publish
from app.jobs.ledger import unique, views
from app.jobs.models import JobRow
from app.jobs.payloads import payload_dict
from app.jobs.states import ENDED
from app.jobs.transition import Moved

_TIMED = ("scheduled", "retrying")


class _Unchanged(Enum):
    UNCHANGED = "unchanged"


UNCHANGED = _Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class Changes:
    """New values; UNCHANGED leaves a field as it is, None removes expires_at."""

    payload: dict[str, Any] | _Unchanged = UNCHANGED
    due_at: datetime | _Unchanged = UNCHANGED
    priority: int | _Unchanged = UNCHANGED
    expires_at: datetime | _Unchanged | None = UNCHANGED


def run_now(session: Session, tenant: str, job_id: str) -> JobRow:
    """Make a scheduled or retrying job due now; a queued one stays as it is.

    Raises NotFound, and Conflict for a job that runs, waits for children or has ended.
    """
    row = views.get(session, tenant, job_id, lock=True)
    if row.state not in (*_TIMED, "queued"):
        raise Conflict(
            f"Job {job_id} {_is(row)}; only one that waits for its time can be started now", code="job_state"
        )
    if row.state in _TIMED:
        _queue(session, row)
    return row


def edit(session: Session, tenant: str, job_id: str, changes: Changes) -> JobRow:
    """Change a job that no worker has claimed. Claim and edit lock the row, so the second sees the first.

    Raises NotFound, Conflict for a job that runs or has ended, InvalidInput for a payload that its kind refuses.
    """
    row = views.get(session, tenant, job_id, lock=True)
    if row.state not in (*_TIMED, "queued"):
        raise Conflict(f"Job {job_id} {_is(row)}; only a job that has not started can be changed", code="job_state")
    if changes.payload is not UNCHANGED:
        _set_payload(row, changes.payload)
    if changes.expires_at is not UNCHANGED:
        row.expires_at = changes.expires_at
    if changes.priority is not UNCHANGED:
        _set_priority(row, changes.priority)
    if changes.due_at is not UNCHANGED:
        _set_due_at(session, row, changes.due_at)
    session.flush()
    return row


def _set_priority(row: JobRow, priority: int) -> None:
    if abs(priority) > MAX_PRIORITY:
        raise InvalidInput(f"priority is between -{MAX_PRIORITY} and {MAX_PRIORITY}", code="priority")
    row.priority = priority


def _set_payload(row: JobRow, payload: dict[str, Any]) -> None:
    kind = definition(row.kind)
    if kind is None:
        raise InvalidInput(f"this server does not know the kind {row.kind}, so it cannot check a payload", code="kind")
    job = kind.load(payload, kind.payload_version)
    if kind.unique_key is not None and unique.key_of(job, None) != _current_key(kind, row):
        raise Conflict(
            f"Job {row.id} would have another unique key with this payload; cancel it and start another",
            code="unique_key",
        )
    row.payload = payload_dict(job)
    row.payload_version = kind.payload_version


def _current_key(kind: type[Job], row: JobRow) -> str | None:
    try:
        return unique.key_of(kind.load(row.payload, row.payload_version), None)
    except InvalidInput:  # its kind no longer reads the payload
        return row.unique_key


def _set_due_at(session: Session, row: JobRow, due_at: datetime) -> None:
    if row.state == "queued" and due_at > clock.now():
        raise Conflict(
            f"Job {row.id} is due already and may start at any moment; it cannot be postponed", code="job_state"
        )
    if row.state == "queued":
        return
    row.due_at = due_at
    if due_at <= clock.now():
        _queue(session, row)


def _queue(session: Session, row: JobRow) -> None:
    """Move a scheduled or retrying job to queued; a relay admits it in fair order."""
    row.state, row.due_at, row.admitted_at = "queued", clock.now(), None
    session.flush()
    moved = Moved(row.id, row.tenant, "queued", row.tries, row.max_tries, row.progress)
    after_commit(session, f"edit:{row.id}", lambda: lambda: publish.announce([moved]))
    push.wake_relay_after_commit(session)


def _is(row: JobRow) -> str:
    return f"has {row.state}" if row.state in ENDED and row.state != "cancelled" else f"is {row.state}"
