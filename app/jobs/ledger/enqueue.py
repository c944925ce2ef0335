"""A job row in the caller's transaction: what the transaction writes and the work it asks for are one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import groupby
from typing import Any, TypedDict, Unpack, cast

import sqlalchemy as sa
from pydantic_core import PydanticSerializationError
from sqlalchemy.orm import Session

from app.core import clock, metrics, sql, trace
from app.core.db import BigId, UtcDateTime
from app.core.errors import InvalidInput
from app.core.ids import uuid7
from app.core.settings import get_settings
from app.jobs.admission import admit
from app.jobs.definition import MOST_PRIORITY, Debounce, Job
from app.jobs.ledger import unique
from app.jobs.ledger.unique import OnConflict, Request
from app.jobs.models import JOB, JobRow

LARGEST_PAYLOAD_BYTES = 256 * 1024

_LOOK: dict[str, Any] = {
    column.name: None for column in JOB.c if column.name not in ("id", "payload", "admitted_at", "unique_key")
}
_LOOK |= {"fence": 0, "tries": 0, "crashes": 0, "open_children": 0, "is_new": True}
_TIMES = ("now", "due_at", "expires_at")


class _Made:
    """A new row's look-alike, read-only by nature: the ORM's own object costs more than the insert.

    What the rows of one call share lies in one dictionary.
    """

    __slots__ = ("_shared", "admitted_at", "id", "payload", "unique_key")

    def __init__(self, shared: dict[str, Any], request: Request, admitted_at: datetime | None) -> None:
        self._shared = shared
        self.id = request.id
        self.payload = request.job
        self.unique_key = request.key
        self.admitted_at = admitted_at

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._shared:
            raise AttributeError(name)
        return self._shared[name]


class Options(TypedDict, total=False):
    """How jobs are started; what is left out is their definition's own, or nothing.

    due_at: waits as `scheduled` until then. expires_at: is not started any more after it. priority: within the queue,
    higher first. unique_key: while a job of the tenant and kind with it is open, that one is returned, or Conflict
    raised with on_conflict="raise". webhook_url: where the end is told. traceparent: by default the one of the request
    or job that runs now.
    """

    request_id: str | None
    document_id: int | None
    due_at: datetime | None
    expires_at: datetime | None
    priority: int | None
    unique_key: str | None
    on_conflict: OnConflict
    webhook_url: str | None
    traceparent: str | None


def enqueue(session: Session, job: Job, *, tenant: str, **options: Unpack[Options]) -> JobRow:
    """The new job, written with this transaction and running soon after its commit; or the open one with its key.

    `is_new` tells which. Raises InvalidInput for a payload over 256 KiB: bodies belong into rows and blobs of their
    room.
    """
    return enqueue_many(session, [job], tenant=tenant, **options)[0]


def enqueue_many(session: Session, jobs: Sequence[Job], *, tenant: str, **options: Unpack[Options]) -> list[JobRow]:
    """The same for many jobs that share these options, in their order: one statement a run of one kind."""
    made: list[JobRow] = []
    for kind, same in groupby(jobs, type):
        made += _start(session, kind, list(same), tenant, options)
    return made


def _start(session: Session, kind: type[Job], jobs: list[Job], tenant: str, options: Options) -> list[JobRow]:
    shared = _shared(kind, tenant, options)
    given = options.get("unique_key")
    if given is None and kind.unique_key is None and kind.unique is None:
        return _insert(session, kind, [Request(uuid7(), job, payload_json(job)) for job in jobs], shared)
    requests = [Request(uuid7(), job, payload_json(job), unique.key_of(job, given)) for job in jobs]
    free = [request for request in requests if request.key is None]
    rows = {row.id: row for row in _insert(session, kind, free, shared)} if free else {}
    asked = unique.Asked(
        session,
        kind,
        tenant,
        shared["due_at"],
        options.get("on_conflict", "return"),
        lambda missing: _insert(session, kind, missing, shared, keyed=True),
    )
    keyed = [request for request in requests if request.key is not None]
    if keyed:
        rows |= {request.id: row for request, row in zip(keyed, unique.start(asked, keyed), strict=True)}
    return [rows[request.id] for request in requests]


def _shared(kind: type[Job], tenant: str, options: Options) -> dict[str, Any]:
    """The columns that all jobs of one kind in one call share, and `now`."""
    now = clock.now()
    due_at, priority = options.get("due_at") or now, options.get("priority")
    if isinstance(kind.unique, Debounce):
        due_at = max(due_at, now + timedelta(seconds=kind.unique.seconds))
    if priority is not None and abs(priority) > MOST_PRIORITY:
        raise InvalidInput(f"priority is between -{MOST_PRIORITY} and {MOST_PRIORITY}", code="priority")
    return {
        "now": now,
        "tenant": tenant,
        "kind": kind.kind,
        "queue": kind.queue,
        "payload_version": kind.payload_version,
        "max_tries": tries_of(kind),
        "state": "scheduled" if due_at > now else "queued",
        "due_at": due_at,
        "expires_at": options.get("expires_at"),
        "request_id": options.get("request_id"),
        "document_id": options.get("document_id"),
        "priority": kind.priority if priority is None else priority,
        "webhook_url": options.get("webhook_url") or kind.webhook_url,
        "traceparent": options.get("traceparent") or trace.current(),
    }


def tries_of(kind: type[Job]) -> int:
    """How often a job of this kind is tried."""
    return kind.max_tries or len(kind.retry_delays or get_settings().retry_delays) + 1


def _insert(
    session: Session, kind: type[Job], requests: list[Request], shared: dict[str, Any], *, keyed: bool = False
) -> list[JobRow]:
    """The rows of these requests; of keyed ones only those that met no open job with their key."""
    admitted, early = 0, False
    if shared["state"] == "queued":
        asked = (kind.queue, kind.kind, shared["tenant"], len(requests), shared["priority"])
        admitted, early = admit.room_for(session, *asked)
    rows: list[list[Any]] = [
        [request.id, request.payload, number < admitted] for number, request in enumerate(requests)
    ]
    if keyed:
        for row, request in zip(rows, requests, strict=True):
            row.append(request.key)
    result = session.execute(_insert_sql(sql.dialect_of(session), keyed), shared | {"rows": json.dumps(rows)})
    written = requests
    if keyed:
        ids = {str(job_id) for job_id in result.scalars()}
        written = [request for request in requests if request.id in ids]
    metrics.JOBS_ENQUEUED.labels(kind.kind, kind.queue).inc(len(written))
    now = shared["now"]
    look = _LOOK | shared | {"created_at": now}
    first = {request.id for request in requests[:admitted]}
    made = [cast(JobRow, _Made(look, request, now if request.id in first else None)) for request in written]
    pushed = [row for row in made if row.admitted_at is not None]
    if pushed:
        admit.push_after_commit(session, pushed, early=early)
    return made


def payload_json(job: Job) -> str:
    """The payload as its row keeps it. Raises InvalidInput for what no row can keep."""
    try:
        payload = job.model_dump_json()
    except PydanticSerializationError as error:  # half a surrogate pair, for example
        raise InvalidInput(f"{job.kind}: the payload is no JSON: {error}", code="payload") from error
    size = len(payload) if payload.isascii() else len(payload.encode())
    if size > LARGEST_PAYLOAD_BYTES:
        limit = LARGEST_PAYLOAD_BYTES
        raise InvalidInput(f"{job.kind}: a payload may have {limit} bytes, this has {size}", code="payload_size")
    if "\\u0000" in payload.replace("\\\\", ""):  # not a backslash that a text itself holds
        raise InvalidInput(f"{job.kind}: the payload has a NUL character", code="payload")
    return payload


def mark_scheduled(session: Session, jobs: Sequence[tuple[str, int]]) -> None:
    """Note on jobs that this transaction has made which schedule asked for each: (job id, schedule id)."""
    dialect = sql.dialect_of(session)
    columns = {"key_id": "id", "key_schedule": "int"}
    rows = [{"key_id": job_id, "key_schedule": schedule_id} for job_id, schedule_id in sorted(jobs)]
    ids = [job_id for job_id, _ in jobs]
    # PostgreSQL is shown the way by its index; SQLite finds it, and would go it once more for each id.
    among = f"AND job.id {sql.among(dialect)}" if dialect == "postgresql" else ""
    session.execute(
        sa.text(
            f"UPDATE job SET schedule_id = key_schedule FROM {sql.rows(dialect, columns)} "
            f"WHERE job.id = key_id {among} AND job.schedule_id IS NULL"
        ),
        {"rows": sql.encode_rows(dialect, rows)} | ({"ids": sql.ids(dialect, ids)} if among else {}),
    )


@lru_cache
def _insert_sql(dialect: str, keyed: bool) -> sa.TextClause:
    if dialect == "postgresql":
        row = (
            "CAST(value ->> 0 AS uuid), CAST(value ->> 1 AS jsonb), CASE WHEN CAST(value ->> 2 AS boolean) THEN {} END"
        )
        rows = "jsonb_array_elements(CAST(:rows AS jsonb))"
        now, due_at, expires_at = (f"CAST(:{name} AS timestamptz)" for name in _TIMES)
    else:
        row, rows = "value ->> 0, value ->> 1, CASE WHEN value ->> 2 THEN {} END", "json_each(:rows)"
        now, due_at, expires_at = (f":{name}" for name in _TIMES)
    key, unless = (", value ->> 3", "WHERE true ON CONFLICT DO NOTHING RETURNING id") if keyed else ("", "")
    return sa.text(
        f"""
        INSERT INTO job (id, payload, admitted_at, tenant, kind, payload_version, queue, state, fence, tries, max_tries,
                         crashes, open_children, due_at, expires_at, document_id, request_id, created_at, priority,
                         webhook_url, traceparent{", unique_key" if keyed else ""})
        SELECT {row.format(now)}, :tenant, :kind, :payload_version, :queue, :state, 0, 0, :max_tries,
               0, 0, {due_at}, {expires_at}, :document_id, :request_id, {now}, :priority,
               :webhook_url, :traceparent{key}
        FROM {rows} {unless}"""
    ).bindparams(
        *(sa.bindparam(name, type_=UtcDateTime()) for name in _TIMES),
        sa.bindparam("document_id", type_=BigId),
        *(sa.bindparam(name, type_=sa.Integer()) for name in ("payload_version", "max_tries", "priority")),
    )
