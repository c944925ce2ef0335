"""Writes of `admitted_at`: which queued jobs lie in the Redis window."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime
from app.jobs.admission.push import QueuedRef
from app.jobs.models import JOB, JobRow

_REF = "id, fence, kind, queue, crashes, tenant"
_OF_GROUP = (
    "SELECT id FROM job WHERE state = 'queued' AND admitted_at IS NULL AND queue = :queue AND priority = :priority "
    "AND tenant = :tenant AND kind = :kind AND due_at <= :now ORDER BY id LIMIT :room"
)


@lru_cache
def _admit_sql(dialect: str, moving: str) -> sa.TextualSelect:
    lock = sql.for_update(dialect, skip_locked=True)
    # Not a subquery: PostgreSQL may run one once a row, each time for other rows, and LIMIT limits nothing.
    return (
        sa.text(
            f"""
            WITH moving AS MATERIALIZED ({moving}{lock})
            UPDATE job SET admitted_at = :now WHERE id IN (SELECT id FROM moving)
            RETURNING {_REF}"""
        )
        .bindparams(sa.bindparam("now", type_=UtcDateTime()))
        .columns(*(sa.column(name, JOB.c[name].type) for name in _REF.split(", ")))
    )


def admit_oldest(session: Session, queue: str, priority: int, tenant: str, kind: str, room: int) -> list[QueuedRef]:
    """Admit the oldest due jobs of one tenant and kind, up to `room`, in the order of their ids."""
    where = {"queue": queue, "priority": priority, "tenant": tenant, "kind": kind, "room": room}
    rows = session.execute(_admit_sql(sql.dialect_of(session), _OF_GROUP), where | {"now": clock.now()})
    return sorted((QueuedRef(*row) for row in rows), key=lambda ref: ref.id)


def admit_ids(session: Session, ids: Sequence[str]) -> list[QueuedRef]:
    """Admit these queued jobs, without those that another transaction admits now; in the order of their ids."""
    if not ids:
        return []
    dialect = sql.dialect_of(session)
    moving = (
        f"SELECT id FROM job WHERE id {sql.among(dialect)} AND state = 'queued' AND admitted_at IS NULL ORDER BY id"
    )
    rows = session.execute(_admit_sql(dialect, moving), {"ids": sql.ids(dialect, ids), "now": clock.now()})
    return sorted((QueuedRef(*row) for row in rows), key=lambda ref: ref.id)


def withdraw(session: Session, *conditions: sa.ColumnElement[bool]) -> int:
    """Take back the admission of queued jobs that fulfil the conditions; return how many.

    Rows that a claim has locked are skipped: the claim sees the limits itself.
    """
    moving = (
        sa.select(JobRow.id)
        .where(JobRow.state == "queued", JobRow.admitted_at.is_not(None), *conditions)
        .order_by(JobRow.id)
        .with_for_update(skip_locked=True)
    )
    return sql.row_count(session, sa.update(JobRow).where(JobRow.id.in_(moving)).values(admitted_at=None))


def leave_window(session: Session, ids: Sequence[str]) -> None:
    """Take back the admission of these queued jobs; a relay admits them again when their limits have room."""
    dialect = sql.dialect_of(session)
    session.execute(
        sa.text(
            "UPDATE job SET admitted_at = NULL WHERE id IN (SELECT id FROM job "
            f"WHERE id {sql.among(dialect)} AND state = 'queued' ORDER BY id{sql.for_update(dialect)})"
        ),
        {"ids": sql.ids(dialect, ids)},
    )


def park(session: Session, ids: Sequence[str], until: datetime) -> None:
    """Take queued jobs out of the window until then: no worker here knows their kind."""
    dialect = sql.dialect_of(session)
    statement = sa.text(
        f"UPDATE job SET admitted_at = NULL, due_at = :until WHERE id {sql.among(dialect)} AND state = 'queued'"
    ).bindparams(sa.bindparam("until", type_=UtcDateTime()))
    session.execute(statement, {"ids": sql.ids(dialect, sorted(ids)), "until": until})
