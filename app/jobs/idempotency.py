"""A request that comes twice under one key is answered once: the key goes in with the work, in one transaction.

So a twin waits on the primary key for the first one's commit and then finds its answer; where the first one rolled
back, nothing is left and the twin does the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime
from app.core.errors import Conflict, InvalidInput
from app.jobs.models import IdempotencyRow

KEPT = timedelta(hours=24)
# How long a twin waits for the first request before it is sent away (PostgreSQL; SQLite's lock has the same patience).
PATIENCE_S = 5
_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Whose key it is, and a digest of the request that it stands for."""

    tenant: str
    key: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets: a status and a body of JSON. `job_id` is the job it is about, which may be waited for.

    `extra` are the keys that are laid over the job where its end is the body.
    """

    status: int
    body: dict[str, Any]
    job_id: str | None = None
    extra: dict[str, Any] | None = None
    replayed: bool = False


def once(session: Session, ticket: Ticket | None, work: Callable[[Session], Answer]) -> Answer:
    """The answer of `work`, or the one it gave under this key within the last 24 hours. Without a ticket just works.

    Raises InvalidInput where the key was used for another request, Conflict while that request is still under way.
    """
    if ticket is None:
        return work(session)
    if not _take(session, ticket):
        return _kept(session, ticket)
    answer = work(session)
    kept = json.dumps({"body": answer.body, "job_id": answer.job_id, "extra": answer.extra})
    mine = (IdempotencyRow.tenant == ticket.tenant, IdempotencyRow.key == ticket.key)
    session.execute(sa.update(IdempotencyRow).where(*mine).values(status=answer.status, answer=kept))
    return answer


def _take(session: Session, ticket: Ticket) -> bool:
    """Whether the key is ours; waits for whoever is about to take it."""
    now = clock.now()
    statement = sa.text(
        """
        INSERT INTO idempotency (tenant, key, request_hash, created_at) VALUES (:tenant, :key, :hash, :now)
        ON CONFLICT (tenant, key) DO UPDATE
        SET request_hash = excluded.request_hash, created_at = excluded.created_at, status = NULL, answer = NULL
        WHERE idempotency.created_at < :too_old
        RETURNING tenant"""
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()), sa.bindparam("too_old", type_=UtcDateTime()))
    values = {
        "tenant": ticket.tenant,
        "key": ticket.key,
        "hash": ticket.request_hash,
        "now": now,
        "too_old": now - KEPT,
    }
    if not sql.is_postgres(session):
        return bool(session.execute(statement, values).all())
    session.execute(sa.text(f"SET LOCAL lock_timeout = '{PATIENCE_S}s'"))
    try:
        taken = bool(session.execute(statement, values).all())
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise Conflict("a request with this Idempotency-Key is under way", code="idempotency_key_in_use") from error
    session.execute(sa.text("SET LOCAL lock_timeout TO DEFAULT"))
    return taken


def _kept(session: Session, ticket: Ticket) -> Answer:
    row = session.get(IdempotencyRow, (ticket.tenant, ticket.key), populate_existing=True)
    if row is None or row.status is None or row.answer is None:  # it aged out between two statements
        raise Conflict("a request with this Idempotency-Key is under way", code="idempotency_key_in_use")
    if row.request_hash != ticket.request_hash:
        raise InvalidInput("this Idempotency-Key was used for another request", code="idempotency_key_reused")
    return Answer(status=row.status, replayed=True, **json.loads(row.answer))
