"""Unique keys, throttles and debounces: when two requests are one job. Constraints guard them, not a prior SELECT.

The partial unique index over open jobs holds a key, the primary key of its table a throttle. The second insert waits
on the index for the commit of the first, and then finds its job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime
from app.core.errors import Conflict, InvalidInput, Unavailable
from app.jobs.definition import Debounce, Job, Throttle
from app.jobs.enqueued import EnqueuedJob, of_existing
from app.jobs.models import DebouncedRow, JobRow, ThrottleRow
from app.jobs.states import OPEN, State

# The other job may end between our insert and our SELECT; this many times in a row means a fault.
ATTEMPTS = 5
MAX_KEY_LENGTH = 200
# The key of a kind with a throttle or a debounce and no key.
ONE_A_TENANT = "*"
# In these states a debounced job takes the newer payload; in others it runs with the older one.
WAITS: tuple[State, ...] = ("scheduled", "queued", "retrying")

OnConflict = Literal["return", "raise"]


class Request(NamedTuple):
    """One requested job: the id it gets if it is new, and its checked payload as JSON."""

    id: str
    job: Job
    payload: str
    key: str | None = None


Insert = Callable[[list[Request]], list[EnqueuedJob]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Shared state of keyed requests of one call. `insert` returns the jobs whose key no open job had."""

    session: Session
    kind: type[Job]
    tenant: str
    due_at: datetime
    on_conflict: OnConflict
    insert: Insert


def key_of(job: Job, caller_key: str | None) -> str | None:
    """Return the caller's key, else that of the definition. Raises InvalidInput for a key that cannot be stored."""
    kind = type(job)
    if caller_key is not None:
        key = caller_key
    elif kind.unique_key is not None:
        declared = kind.unique_key(job)
        if declared is None:
            return None
        key = str(declared)
    else:
        return None if kind.unique is None else ONE_A_TENANT
    if len(key) > MAX_KEY_LENGTH or not key.isprintable():
        raise InvalidInput(
            f"{kind.kind}: a unique key has up to {MAX_KEY_LENGTH} printable characters", code="unique_key"
        )
    return key


def start(asked: Asked, requests: list[Request]) -> list[EnqueuedJob]:
    """Return the job of each keyed request, in their order: a new one, or the one that has the key."""
    mode = asked.kind.unique
    last = {request.key: request for request in requests}
    first = {request.key: request for request in reversed(requests)}
    # In the order of the keys: two calls that share some must wait for each other in the same order.
    chosen = sorted((last if isinstance(mode, Debounce) else first).values(), key=lambda request: request.key or "")
    rows = _throttled(asked, mode, chosen) if isinstance(mode, Throttle) else _while_open(asked, chosen)
    return [rows[request.key or ""] for request in requests]


def _while_open(asked: Asked, requests: list[Request]) -> dict[str, EnqueuedJob]:
    """Return jobs by key: inserted, or open before; an open debounced job takes the newer payload."""
    rows: dict[str, EnqueuedJob] = {}
    missing = requests
    for _ in range(ATTEMPTS):
        for job in asked.insert(missing):
            rows[job.unique_key or ""] = job
        missing = [request for request in missing if request.key not in rows]
        if not missing:
            return rows
        debounce = asked.kind.unique if isinstance(asked.kind.unique, Debounce) else None
        open_rows = _open_rows(asked, [request.key or "" for request in missing], lock=debounce is not None)
        by_key = {row.unique_key: row for row in open_rows}
        for request in missing:
            row = by_key.get(request.key)
            if row is None:
                continue
            if asked.on_conflict == "raise":
                raise taken(row)
            if debounce is not None:
                _renew(asked, debounce, row, request)
            rows[request.key or ""] = of_existing(row)
        missing = [request for request in missing if request.key not in rows]
    raise Unavailable(f"jobs with the key {missing[0].key} come and go too fast", code="unique_key", retry_after_s=1)


def taken(row: JobRow) -> Conflict:
    """Return the error for a caller that asked for conflicts."""
    return Conflict(
        f"Job {row.id} has the key {row.unique_key}",
        code="unique_key",
        errors=[{"field": "unique_key", "message": f"held by job {row.id}", "job_id": row.id}],
    )


def _open_rows(asked: Asked, keys: Iterable[str], *, lock: bool) -> list[JobRow]:
    query = (
        sa.select(JobRow)
        .where(JobRow.tenant == asked.tenant, JobRow.kind == asked.kind.kind, JobRow.unique_key.in_(list(keys)))
        .where(JobRow.state.in_(OPEN))
        .order_by(JobRow.id)
    )
    if lock:
        query = query.with_for_update()
    return list(asked.session.scalars(query, execution_options={"populate_existing": True}))


def _renew(asked: Asked, debounce: Debounce, row: JobRow, request: Request) -> None:
    """Give a locked debounced job the newer payload: now, or for another run after this one."""
    now, session = clock.now(), asked.session
    payload, version = json.loads(request.payload), asked.kind.payload_version
    coming = session.get(DebouncedRow, row.id)
    if row.state in WAITS:
        row.payload, row.payload_version = payload, version
        if row.state == "scheduled":
            row.due_at = _due(debounce, asked.due_at, row.created_at)
        if coming is not None:
            session.delete(coming)
    elif coming is not None:
        coming.payload, coming.payload_version = payload, version
        coming.due_at = _due(debounce, asked.due_at, coming.since_at)
    else:
        due_at = _due(debounce, asked.due_at, now)
        session.add(DebouncedRow(job_id=row.id, payload=payload, payload_version=version, since_at=now, due_at=due_at))
    session.flush()


def _due(debounce: Debounce, due_at: datetime, since: datetime) -> datetime:
    return min(due_at, since + timedelta(seconds=debounce.max_wait_s))


_SLOT = {"key_id": "id", "key_text": "text"}


def _throttled(asked: Asked, mode: Throttle, requests: list[Request]) -> dict[str, EnqueuedJob]:
    """Return jobs by key: inserted where the key is free, else the job that had it last."""
    won = _take_slots(asked, mode, requests)
    rows = _while_open(asked, [request for request in requests if request.id in won])
    for request in requests:
        key = request.key or ""
        if request.id in won and not rows[key].is_new:  # still open after its throttle
            _set_slot(asked, key, rows[key].id)
        elif request.id not in won:
            rows[key] = _slot_holder(asked, request)
    return rows


def _take_slots(asked: Asked, mode: Throttle, requests: list[Request]) -> set[str]:
    """Take the free keys; return the ids of the requests that got theirs."""
    dialect, now = sql.dialect_of(asked.session), clock.now()
    free_at = sql.time_cast(dialect, "free_at")
    statement = sa.text(
        f"""
        INSERT INTO throttle (tenant, kind, unique_key, job_id, free_at)
        SELECT :tenant, :kind, key_text, key_id, {free_at}
        FROM {sql.rows(dialect, _SLOT)} WHERE true
        ON CONFLICT (tenant, kind, unique_key) DO UPDATE SET job_id = excluded.job_id, free_at = excluded.free_at
        WHERE throttle.free_at <= :now
        RETURNING job_id"""
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()), sa.bindparam("free_at", type_=UtcDateTime()))
    rows = [{"key_id": request.id, "key_text": request.key} for request in requests]
    parameters = {
        "tenant": asked.tenant,
        "kind": asked.kind.kind,
        "free_at": now + timedelta(seconds=mode.seconds),
        "now": now,
        "rows": sql.encode_rows(dialect, rows),
    }
    return {str(job_id) for job_id in asked.session.scalars(statement, parameters)}


def _slot(asked: Asked, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (ThrottleRow.tenant == asked.tenant, ThrottleRow.kind == asked.kind.kind, ThrottleRow.unique_key == key)


def _set_slot(asked: Asked, key: str, job_id: str) -> None:
    asked.session.execute(sa.update(ThrottleRow).where(*_slot(asked, key)).values(job_id=job_id))


def _slot_holder(asked: Asked, request: Request) -> EnqueuedJob:
    """Return the job that had the key last, or a new one if that job was deleted by retention."""
    key = request.key or ""
    query = sa.select(JobRow).join(ThrottleRow, ThrottleRow.job_id == JobRow.id).where(*_slot(asked, key))
    holder = asked.session.scalars(query).one_or_none()
    if holder is None:
        job = _while_open(asked, [request])[key]
        _set_slot(asked, key, job.id)
        return job
    if asked.on_conflict == "raise":
        raise taken(holder)
    return of_existing(holder)


def take_newer(session: Session, job_ids: Iterable[str]) -> dict[str, datetime]:
    """Give these locked jobs the payload that came while they ran; return when each is due again."""
    query = sa.select(DebouncedRow).where(DebouncedRow.job_id.in_(list(job_ids)))
    due: dict[str, datetime] = {}
    for newer in session.scalars(query).all():
        values = {"payload": newer.payload, "payload_version": newer.payload_version}
        session.execute(sa.update(JobRow).where(JobRow.id == newer.job_id).values(values))
        due[newer.job_id] = newer.due_at
        session.delete(newer)
    session.flush()
    return due
