"""Enqueue jobs in the caller's transaction, so that its data and the work it asks for commit together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import groupby
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, metrics, sql
from app.core.db import BigId, UtcDateTime
from app.core.errors import InvalidInput
from app.core.ids import uuid7
from app.core.settings import get_settings
from app.core.telemetry import trace
from app.jobs.admission import admit
from app.jobs.definition import Debounce, Job
from app.jobs.definition_checks import MAX_PRIORITY
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import unique
from app.jobs.ledger.unique import OnConflict, Request
from app.jobs.payloads import payload_json

# The fields of EnqueuedJob after its id; the next ones differ from job to job.
_SHARED_FIELDS = (
    "tenant", "kind", "queue", "state", "max_tries", "priority", "due_at", "now", "expires_at", "document_id",
    "request_id",
)  # fmt: skip
_TIMES = ("now", "due_at", "expires_at")


class Options(TypedDict, total=False):
    """Options of a start; the definition's value, if any, applies where one is left out.

    due_at: the job is `scheduled` until then. expires_at: the job does not start later. priority: within the queue,
    higher first. unique_key: while a job of the tenant and kind with this key is open, that job is returned, or
    Conflict raised with on_conflict="raise". webhook_url: receives the end. traceparent: by default that of the
    request or job that runs now.
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


def enqueue(session: Session, job: Job, *, tenant: str, **options: Unpack[Options]) -> EnqueuedJob:
    """Write a job in this transaction; it runs soon after the commit. Return it, or the open job with its unique key.

    Raises InvalidInput for a payload over 256 KiB: large bodies belong in rows or blobs of their room.
    """
    return enqueue_many(session, [job], tenant=tenant, **options)[0]


def enqueue_many(
    session: Session, jobs: Sequence[Job], *, tenant: str, **options: Unpack[Options]
) -> list[EnqueuedJob]:
    """Like `enqueue` for many jobs with the same options, in their order; one statement for each run of one kind."""
    enqueued: list[EnqueuedJob] = []
    for kind, same in groupby(jobs, type):
        enqueued += _start(session, kind, list(same), tenant, options)
    return enqueued


def _start(session: Session, kind: type[Job], jobs: list[Job], tenant: str, options: Options) -> list[EnqueuedJob]:
    shared = _shared(kind, tenant, options)
    caller_key = options.get("unique_key")
    if caller_key is None and kind.unique_key is None and kind.unique is None:
        return _insert(session, kind, [Request(uuid7(), job, payload_json(job)) for job in jobs], shared)
    requests = [Request(uuid7(), job, payload_json(job), unique.key_of(job, caller_key)) for job in jobs]
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
    """Return the column values that all jobs of one kind in one call share, and `now`."""
    now = clock.now()
    due_at, priority = options.get("due_at") or now, options.get("priority")
    if isinstance(kind.unique, Debounce):
        due_at = max(due_at, now + timedelta(seconds=kind.unique.seconds))
    if priority is not None and abs(priority) > MAX_PRIORITY:
        raise InvalidInput(f"priority is between -{MAX_PRIORITY} and {MAX_PRIORITY}", code="priority")
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
    """Return how many tries a job of this kind has."""
    delays = get_settings().retry_delays if kind.retry_delays is None else kind.retry_delays
    return kind.max_tries or len(delays) + 1


def _insert(
    session: Session, kind: type[Job], requests: list[Request], shared: dict[str, Any], *, keyed: bool = False
) -> list[EnqueuedJob]:
    """Insert rows for these requests; of keyed ones, those whose key no open job has."""
    admitted, promoted = 0, False
    if shared["state"] == "queued":
        asked = (kind.queue, kind.kind, shared["tenant"], len(requests), shared["priority"])
        admitted, promoted = admit.room_for(session, *asked)
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
    now, admitted_ids = shared["now"], {request.id for request in requests[:admitted]}
    columns = [shared[name] for name in _SHARED_FIELDS]
    enqueued = [
        EnqueuedJob._make((request.id, *columns, now if request.id in admitted_ids else None, request.key, None))
        for request in written
    ]
    pushed = [job for job in enqueued if job.admitted_at is not None]
    if pushed:
        admit.push_after_commit(session, pushed, promoted=promoted)
    return enqueued


def mark_scheduled(session: Session, jobs: Sequence[tuple[str, int]]) -> None:
    """Write on new jobs of this transaction which schedule started each: pairs of job id and schedule id."""
    dialect = sql.dialect_of(session)
    columns = {"key_id": "id", "key_schedule": "int"}
    rows = [{"key_id": job_id, "key_schedule": schedule_id} for job_id, schedule_id in sorted(jobs)]
    ids = [job_id for job_id, _ in jobs]
    session.execute(
        sa.text(
            f"UPDATE job SET schedule_id = key_schedule FROM {sql.rows(dialect, columns)} "
            f"WHERE {sql.joined_on_id(dialect)} AND job.schedule_id IS NULL"
        ),
        {"rows": sql.encode_rows(dialect, rows)} | ({"ids": sql.ids(dialect, ids)} if dialect == "postgresql" else {}),
    )


@lru_cache
def _insert_sql(dialect: str, keyed: bool) -> sa.TextClause:
    if dialect == "postgresql":
        row = (
            "CAST(value ->> 0 AS uuid), CAST(value ->> 1 AS jsonb), CASE WHEN CAST(value ->> 2 AS boolean) THEN {} END"
        )
        rows = "jsonb_array_elements(CAST(:rows AS jsonb))"
    else:
        row, rows = "value ->> 0, value ->> 1, CASE WHEN value ->> 2 THEN {} END", "json_each(:rows)"
    now, due_at, expires_at = (sql.time_cast(dialect, name) for name in _TIMES)
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
