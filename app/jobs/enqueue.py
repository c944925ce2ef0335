"""A job row in the caller's transaction: what the transaction writes and the work it asks for are one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from types import SimpleNamespace
from typing import Any, cast

import sqlalchemy as sa
from pydantic_core import PydanticSerializationError
from sqlalchemy.orm import Session

from app.core import clock, metrics
from app.core.db import BigId, UtcDateTime
from app.core.errors import InvalidInput
from app.core.ids import uuid7
from app.core.settings import get_settings
from app.jobs import dispatch
from app.jobs.definition import Job
from app.jobs.models import JOB, JobRow

LARGEST_PAYLOAD_BYTES = 256 * 1024

_NOTHING = {column.name: None for column in JOB.c if column.name not in ("id", "payload", "admitted_at")}
_TIMES = ("now", "due_at", "expires_at")


def enqueue(
    session: Session,
    job: Job,
    *,
    tenant: str,
    request_id: str | None = None,
    document_id: int | None = None,
    due_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> JobRow:
    """The new job, written with this transaction and running soon after its commit.

    With a due_at in the future it waits as `scheduled`; after expires_at it is not started any more. Raises
    InvalidInput for a payload over 256 KiB: bodies belong into rows and blobs of their room.
    """
    return enqueue_many(
        session,
        [job],
        tenant=tenant,
        request_id=request_id,
        document_id=document_id,
        due_at=due_at,
        expires_at=expires_at,
    )[0]


def enqueue_many(
    session: Session,
    jobs: Sequence[Job],
    *,
    tenant: str,
    request_id: str | None = None,
    document_id: int | None = None,
    due_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> list[JobRow]:
    """The same for many jobs that share these options, in their order: one statement a run of one kind."""
    now = clock.now()
    shared = {
        "tenant": tenant,
        "request_id": request_id,
        "document_id": document_id,
        "now": now,
        "due_at": due_at or now,
        "expires_at": expires_at,
        "state": "scheduled" if due_at is not None and due_at > now else "queued",
    }
    made: list[JobRow] = []
    for kind, same in groupby(jobs, type):
        made += _insert(session, kind, list(same), shared)
    admitted = [row for row in made if row.admitted_at is not None]
    if admitted:
        dispatch.push_after_commit(session, admitted)
    return made


def _insert(session: Session, kind: type[Job], jobs: list[Job], shared: dict[str, Any]) -> list[JobRow]:
    payloads = [_payload(job) for job in jobs]
    ids = [uuid7() for _ in jobs]
    admitted = dispatch.window.take(kind.queue, len(jobs)) if shared["state"] == "queued" else 0
    rows = [
        [job_id, payload, number < admitted] for number, (job_id, payload) in enumerate(zip(ids, payloads, strict=True))
    ]
    common = shared | {
        "kind": kind.kind,
        "queue": kind.queue,
        "payload_version": kind.payload_version,
        "max_tries": kind.max_tries or len(kind.retry_delays or get_settings().retry_delays) + 1,
    }
    session.execute(_insert_sql(session.get_bind().dialect.name), common | {"rows": json.dumps(rows)})
    metrics.JOBS_ENQUEUED.labels(kind.kind, kind.queue).inc(len(jobs))
    now = common.pop("now")
    look = _NOTHING | common | {"created_at": now, "fence": 0, "tries": 0, "crashes": 0, "open_children": 0}
    # A look-alike, read-only by nature: the ORM's own object costs more than the insert.
    return [
        cast(JobRow, SimpleNamespace(**look, id=job_id, payload=job, admitted_at=now if first else None))
        for (job_id, _, first), job in zip(rows, jobs, strict=True)
    ]


def _payload(job: Job) -> str:
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


@lru_cache
def _insert_sql(dialect: str) -> sa.TextClause:
    if dialect == "postgresql":
        row = (
            "CAST(value ->> 0 AS uuid), CAST(value ->> 1 AS jsonb), CASE WHEN CAST(value ->> 2 AS boolean) THEN {} END"
        )
        rows = "jsonb_array_elements(CAST(:rows AS jsonb))"
        now, due_at, expires_at = (f"CAST(:{name} AS timestamptz)" for name in _TIMES)
    else:
        row, rows = "value ->> 0, value ->> 1, CASE WHEN value ->> 2 THEN {} END", "json_each(:rows)"
        now, due_at, expires_at = (f":{name}" for name in _TIMES)
    return sa.text(
        f"""
        INSERT INTO job (id, payload, admitted_at, tenant, kind, payload_version, queue, state, fence, tries, max_tries,
                         crashes, open_children, due_at, expires_at, document_id, request_id, created_at)
        SELECT {row.format(now)}, :tenant, :kind, :payload_version, :queue, :state, 0, 0, :max_tries,
               0, 0, {due_at}, {expires_at}, :document_id, :request_id, {now}
        FROM {rows}"""
    ).bindparams(
        *(sa.bindparam(name, type_=UtcDateTime()) for name in _TIMES),
        sa.bindparam("document_id", type_=BigId),
        sa.bindparam("payload_version", type_=sa.Integer()),
        sa.bindparam("max_tries", type_=sa.Integer()),
    )
