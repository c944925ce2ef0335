"""When two requests are one job: what a key returns, throttles and debounces. Guarded by constraints, never by a look.

A key is held by the partial unique index over open jobs, a throttle by the primary key of its table. Whoever inserts
second waits on the index for the first one's commit, and then finds its job.
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
from app.jobs.models import DebouncedRow, JobRow, ThrottleRow
from app.jobs.states import OPEN, State

# The other job may end between our insert and our look; more often than this it does not.
ATTEMPTS = 5
LONGEST_KEY = 200
# What a kind with a throttle or a debounce and no key of its own is unique by.
ONE_A_TENANT = "*"
# A debounced job takes the newer payload in these states; in all others it runs with the older one.
WAITS: tuple[State, ...] = ("scheduled", "queued", "retrying")

OnConflict = Literal["return", "raise"]


class Request(NamedTuple):
    """One asked-for job: its id if it becomes one, and the checked payload as JSON."""

    id: str
    job: Job
    payload: str
    key: str | None = None


Insert = Callable[[list[Request]], list[JobRow]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What keyed requests of one call share. `insert` returns the rows of those that met no open job."""

    session: Session
    kind: type[Job]
    tenant: str
    due_at: datetime
    on_conflict: OnConflict
    insert: Insert


def key_of(job: Job, given: str | None) -> str | None:
    """What the job is unique by: the caller's key, else its definition's. Raises InvalidInput for none we can keep."""
    kind = type(job)
    if given is not None:
        key = given
    elif kind.unique_key is not None:
        said = kind.unique_key(job)
        if said is None:
            return None
        key = str(said)
    else:
        return None if kind.unique is None else ONE_A_TENANT
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise InvalidInput(f"{kind.kind}: a unique key has up to {LONGEST_KEY} printable characters", code="unique_key")
    return key


def start(asked: Asked, requests: list[Request]) -> list[JobRow]:
    """The job of each keyed request, in their order: a new one, or the one that has its key."""
    mode = asked.kind.unique
    last = {request.key: request for request in requests}
    first = {request.key: request for request in reversed(requests)}
    # In the order of the keys: two calls that share some must wait for each other in the same order.
    chosen = sorted((last if isinstance(mode, Debounce) else first).values(), key=lambda one: one.key or "")
    rows = _throttled(asked, mode, chosen) if isinstance(mode, Throttle) else _while_open(asked, chosen)
    return [rows[request.key or ""] for request in requests]


def _while_open(asked: Asked, requests: list[Request]) -> dict[str, JobRow]:
    """By key: inserted, or the open job; a debounced one takes the newer payload."""
    rows: dict[str, JobRow] = {}
    missing = requests
    for _ in range(ATTEMPTS):
        for row in asked.insert(missing):
            rows[row.unique_key or ""] = row
        missing = [request for request in missing if request.key not in rows]
        if not missing:
            return rows
        debounce = asked.kind.unique if isinstance(asked.kind.unique, Debounce) else None
        for row in _open_rows(asked, [request.key or "" for request in missing], lock=debounce is not None):
            rows[row.unique_key or ""] = row
        for request in missing:
            found = rows.get(request.key or "")
            if found is None:
                continue
            if asked.on_conflict == "raise":
                raise taken(found)
            if debounce is not None:
                _renew(asked, debounce, found, request)
        missing = [request for request in missing if request.key not in rows]
    raise Unavailable(f"jobs with the key {missing[0].key} come and go too fast", code="unique_key", retry_after_s=1)


def taken(row: JobRow) -> Conflict:
    """What a caller is told who asked to know."""
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
    """Give a debounced job, whose row is locked, the newer payload: now, or for another run after this one."""
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


def _throttled(asked: Asked, mode: Throttle, requests: list[Request]) -> dict[str, JobRow]:
    """By key: inserted where the key is free, else the job that had it last."""
    won = _take_slots(asked, mode, requests)
    rows = _while_open(asked, [request for request in requests if request.id in won])
    for request in requests:
        key = request.key or ""
        if request.id in won and not rows[key].is_new:  # longer than its throttle, it is still open
            _set_slot(asked, key, rows[key].id)
        elif request.id not in won:
            rows[key] = _slot_holder(asked, request)
    return rows


def _take_slots(asked: Asked, mode: Throttle, requests: list[Request]) -> set[str]:
    """The ids of the requests whose key was free, and is theirs from now on."""
    dialect, now = sql.dialect_of(asked.session), clock.now()
    free_at = ":free_at" if dialect == "sqlite" else "CAST(:free_at AS timestamptz)"
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


def _slot_holder(asked: Asked, request: Request) -> JobRow:
    """The job that had the key last; where that has aged out, a new one in its place."""
    key = request.key or ""
    query = sa.select(JobRow).join(ThrottleRow, ThrottleRow.job_id == JobRow.id).where(*_slot(asked, key))
    found = asked.session.scalars(query).one_or_none()
    if found is None:
        row = _while_open(asked, [request])[key]
        _set_slot(asked, key, row.id)
        return row
    if asked.on_conflict == "raise":
        raise taken(found)
    return found


def take_newer(session: Session, job_ids: Iterable[str]) -> dict[str, datetime]:
    """Give those of the jobs, whose rows are locked, the payload that came while they ran. When each is due again."""
    query = sa.select(DebouncedRow).where(DebouncedRow.job_id.in_(list(job_ids)))
    due: dict[str, datetime] = {}
    for newer in session.scalars(query).all():
        values = {"payload": newer.payload, "payload_version": newer.payload_version}
        session.execute(sa.update(JobRow).where(JobRow.id == newer.job_id).values(values))
        due[newer.job_id] = newer.due_at
        session.delete(newer)
    session.flush()
    return due
