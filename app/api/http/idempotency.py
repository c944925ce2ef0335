"""`Idempotency-Key` on routes that create: the same key and body get the same answer, for 24 hours.

The key is stored in the transaction of the work. A twin request therefore waits on the primary key until the first one
commits, and then returns its answer. If the first one rolls back, the twin does the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, Header, Request
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.api.http.auth import Identity
from app.core import clock, sql
from app.core.db import UtcDateTime, in_transaction
from app.core.errors import Conflict, InvalidInput
from app.documents.accept.quota import within
from app.jobs.models import IdempotencyRow

MAX_KEY_CHARS = 255
LIFETIME = timedelta(hours=24)
# PostgreSQL: a twin waits this long for the first request. SQLite's lock has the same timeout.
LOCK_TIMEOUT_S = 5
_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The key of a tenant, and a digest of the request it belongs to."""

    tenant: str
    key: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body. `job_id` is the job that the caller may wait for.

    `extra` are keys that replace or extend those of the ended job after a wait.
    """

    status: int
    body: dict[str, Any]
    job_id: str | None = None
    extra: dict[str, Any] | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """The key of this request, None without one, and the digest of its content."""

    key: str | None
    request_hash: str

    async def run(self, caller: Identity, work: Callable[[Session], Answer]) -> Answer:
        """Run `work` in one transaction with the key and within the tenant's quotas, or return the stored answer.

        A stored answer is for callers with the scopes of the first one only: checks within `work` are not repeated.

        Raises InvalidInput (422) for another request under this key, Conflict (409) while the first one is running,
        LimitReached (429) or Conflict (409) beyond a quota.
        """
        tenant = caller.tenant
        digest = hashlib.sha256(" ".join([self.request_hash, *sorted(caller.scopes)]).encode()).hexdigest()
        key = None if self.key is None else IdempotencyKey(tenant, self.key, digest)
        return await in_transaction(run_once, key, lambda session: within(session, tenant, work))


Header_ = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Any text: a repeated request with the same key gets the first answer, for 24 hours.",
    ),
]


async def _checked(key: Header_ = None) -> str | None:
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise InvalidInput(
            f"Idempotency-Key must be 1 to {MAX_KEY_CHARS} printable ASCII characters", code="idempotency_key"
        )
    return key


# For routes whose bodies are too large to digest: they make an IdempotentRequest themselves.
KeyHeader = Annotated[str | None, Depends(_checked)]


async def _of_request(request: Request, key: KeyHeader) -> IdempotentRequest:
    if key is None:
        return IdempotentRequest(None, "")
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    digest.update(await request.body())
    return IdempotentRequest(key, digest.hexdigest())


Idempotent = Annotated[IdempotentRequest, Depends(_of_request)]


def run_once(session: Session, key: IdempotencyKey | None, work: Callable[[Session], Answer]) -> Answer:
    """Return the answer of `work`, or the one stored under this key in the last 24 hours. Without a key, just work.

    Raises InvalidInput if the key was used for another request, Conflict while that request is still running.
    """
    if key is None:
        return work(session)
    if not _claim(session, key):
        return _stored_answer(session, key)
    answer = work(session)
    text = json.dumps({"body": answer.body, "job_id": answer.job_id, "extra": answer.extra})
    own_row = (IdempotencyRow.tenant == key.tenant, IdempotencyRow.key == key.key)
    session.execute(sa.update(IdempotencyRow).where(*own_row).values(status=answer.status, answer=text))
    return answer


def _claim(session: Session, key: IdempotencyKey) -> bool:
    """Return True if this request now owns the key; waits for a request that is claiming it."""
    now = clock.now()
    statement = sa.text(
        """
        INSERT INTO idempotency (tenant, key, request_hash, created_at) VALUES (:tenant, :key, :hash, :now)
        ON CONFLICT (tenant, key) DO UPDATE
        SET request_hash = excluded.request_hash, created_at = excluded.created_at, status = NULL, answer = NULL
        WHERE idempotency.created_at < :too_old
        RETURNING tenant"""
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()), sa.bindparam("too_old", type_=UtcDateTime()))
    values = {"tenant": key.tenant, "key": key.key, "hash": key.request_hash, "now": now, "too_old": now - LIFETIME}
    if not sql.is_postgres(session):
        return bool(session.execute(statement, values).all())
    session.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
    try:
        claimed = bool(session.execute(statement, values).all())
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise _key_in_use() from error
    session.execute(sa.text("SET LOCAL lock_timeout TO DEFAULT"))
    return claimed


def _stored_answer(session: Session, key: IdempotencyKey) -> Answer:
    row = session.get(IdempotencyRow, (key.tenant, key.key), populate_existing=True)
    if row is None or row.status is None or row.answer is None:  # it aged out between two statements
        raise _key_in_use()
    if row.request_hash != key.request_hash:
        raise InvalidInput("this Idempotency-Key was used for another request", code="idempotency_key_reused")
    return Answer(status=row.status, replayed=True, **json.loads(row.answer))


def _key_in_use() -> Conflict:
    return Conflict("a request with this Idempotency-Key is still running", code="idempotency_key_in_use")
