"""What a person changes about a job that no worker has yet: when it starts, what it is given, until when."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import after_commit
from app.core.errors import Conflict, InvalidInput
from app.jobs.admission import push
from app.jobs.definition import MAX_PRIORITY, Job, definition
from app.jobs.events import publish
from app.jobs.ledger import unique, views
from app.jobs.ledger.enqueue import payload_json
from app.jobs.models import JobRow
from app.jobs.states import ENDED
from app.jobs.transition import Moved

_LATER = ("scheduled", "retrying")


class _Kept(Enum):
    KEPT = "kept"


KEPT = _Kept.KEPT


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change; KEPT leaves a field as it is, None takes an expires_at away."""

    payload: dict[str, Any] | _Kept = KEPT
    due_at: datetime | _Kept = KEPT
    priority: int | _Kept = KEPT
    expires_at: datetime | _Kept | None = KEPT


def run_now(session: Session, tenant: str, job_id: str) -> JobRow:
    """Make a job due that waits for its time or for its next try. One that is queued already stays as it is.

    Raises NotFound, and Conflict for what runs, waits for children or has ended.
    """
    row = views.get(session, tenant, job_id, lock=True)
    if row.state not in (*_LATER, "queued"):
        raise Conflict(
            f"Job {job_id} {_is(row)}; only one that waits for its time can be started now", code="job_state"
        )
    if row.state in _LATER:
        _queue(session, row)
    return row


def edit(session: Session, tenant: str, job_id: str, changes: Changes) -> JobRow:
    """Change a job that no worker has. A claim and an edit cannot cross: whichever is second sees the first.

    Raises NotFound, Conflict for a job that runs or has ended, InvalidInput for a payload that its kind refuses.
    """
    row = views.get(session, tenant, job_id, lock=True)
    if row.state not in (*_LATER, "queued"):
        raise Conflict(f"Job {job_id} {_is(row)}; only a job that has not started can be changed", code="job_state")
    if changes.payload is not KEPT:
        _set_payload(row, changes.payload)
    if changes.expires_at is not KEPT:
        row.expires_at = changes.expires_at
    if changes.priority is not KEPT:
        _set_priority(row, changes.priority)
    if changes.due_at is not KEPT:
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
    if kind.unique_key is not None and unique.key_of(job, None) != _key_of_today(kind, row):
        raise Conflict(
            f"Job {row.id} would have another unique key with this payload; cancel it and start another",
            code="unique_key",
        )
    row.payload = json.loads(payload_json(job))
    row.payload_version = kind.payload_version


def _key_of_today(kind: type[Job], row: JobRow) -> str | None:
    try:
        return unique.key_of(kind.load(row.payload, row.payload_version), None)
    except InvalidInput:  # a payload that its kind no longer reads
        return row.unique_key


def _set_due_at(session: Session, row: JobRow, due_at: datetime) -> None:
    if row.state == "queued" and due_at > clock.now():
        raise Conflict(f"Job {row.id} is due already and may start any moment; it cannot be put off", code="job_state")
    if row.state == "queued":
        return
    row.due_at = due_at
    if due_at <= clock.now():
        _queue(session, row)


def _queue(session: Session, row: JobRow) -> None:
    """scheduled, retrying → queued; a relay lets it into the window, as fairly as all others."""
    row.state, row.due_at, row.admitted_at = "queued", clock.now(), None
    session.flush()
    moved = Moved(row.id, row.tenant, "queued", row.tries, row.max_tries, row.progress)
    after_commit(session, f"edit:{row.id}", lambda: lambda: publish.announce([moved]))
    push.wake_relay_after_commit(session)


def _is(row: JobRow) -> str:
    return f"has {row.state}" if row.state in ENDED and row.state != "cancelled" else f"is {row.state}"
