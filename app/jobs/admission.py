"""Which queued jobs lie in Redis: the window of each queue, fed in the order of their making."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sqlrows
from app.core.db import UtcDateTime
from app.jobs import dispatch, gates, ledger
from app.jobs.dispatch import Ticket
from app.jobs.models import JOB, JobRow
from app.jobs.queues import QUEUES

_TICKET = "id, fence, kind, queue, crashes"


def room_for(session: Session, queue: str, kind: str, tenant: str, count: int) -> int:
    """How many of so many new jobs their own transaction may admit; what it may not, a relay does in fair order."""
    before = gates.believed(session).before(queue, kind, tenant)
    if not before:
        return dispatch.window.take(queue, count)
    if not any(gate.paused for gate in before):
        dispatch.wake_relay_after_commit(session)
    return 0


_NOT_PAUSED = "".join(
    f"""
                    AND NOT EXISTS (SELECT 1 FROM gate WHERE scope = '{scope}' AND name = job.{scope}
                                    AND paused_at IS NOT NULL)"""
    for scope in gates.SCOPES
)


@lru_cache
def _admit_sql(dialect: str) -> sa.TextualSelect:
    lock = " FOR UPDATE SKIP LOCKED" if dialect == "postgresql" else ""
    # Not a subquery: PostgreSQL may run one once a row, each time for others, and LIMIT limits nothing.
    table = JOB
    return (
        sa.text(
            f"""
            WITH moving AS MATERIALIZED (
                SELECT id FROM job WHERE state = 'queued' AND admitted_at IS NULL AND queue = :queue
                   AND due_at <= :now{_NOT_PAUSED}
                ORDER BY id LIMIT :room{lock})
            UPDATE job SET admitted_at = :now WHERE id IN (SELECT id FROM moving)
            RETURNING {_TICKET}"""
        )
        .bindparams(sa.bindparam("now", type_=UtcDateTime()))
        .columns(*(sa.column(name, table.c[name].type) for name in _TICKET.split(", ")))
    )


def admit(session: Session, queue: str, room: int) -> list[Ticket]:
    """Admit up to `room` jobs of the queue, the oldest first; they are to be pushed after the commit."""
    dialect = session.get_bind().dialect.name
    rows = session.execute(_admit_sql(dialect), {"now": clock.now(), "queue": queue, "room": room})
    return sorted((Ticket(*row) for row in rows), key=lambda ticket: ticket.id)


def waiting_queues(session: Session, queues: list[str]) -> list[str]:
    """Those of the queues that have a job to admit."""
    now = clock.now()
    found = []
    for queue in queues:
        unfed = sa.select(JobRow.id).where(
            JobRow.state == "queued", JobRow.admitted_at.is_(None), JobRow.queue == queue, JobRow.due_at <= now
        )
        if session.scalar(unfed.limit(1)) is not None:
            found.append(queue)
    return found


def unclaimed(session: Session, queue: str, older_than: timedelta, limit: int) -> list[Ticket]:
    """Admitted jobs of the queue that nobody has claimed for so long: pushed and waiting, or lost."""
    before = clock.now() - older_than
    columns = (JobRow.id, JobRow.fence, JobRow.kind, JobRow.queue, JobRow.crashes)
    query = sa.select(*columns).where(JobRow.state == "queued", JobRow.admitted_at < before, JobRow.queue == queue)
    return [Ticket(*row) for row in session.execute(query.order_by(JobRow.admitted_at).limit(limit))]


def empty_windows(session: Session) -> int:
    """Take back every admission: Redis has lost its lists. How many there were."""
    moving = (
        sa.select(JobRow.id)
        .where(JobRow.state == "queued", JobRow.admitted_at.is_not(None))
        .order_by(JobRow.id)
        .with_for_update(skip_locked=True)
    )
    return ledger.count(session, sa.update(JobRow).where(JobRow.id.in_(moving)).values(admitted_at=None))


def park(session: Session, ids: list[str], until: datetime) -> None:
    """Take queued jobs out of the window until then: no worker here knows their kind."""
    dialect = session.get_bind().dialect.name
    statement = sa.text(
        f"UPDATE job SET admitted_at = NULL, due_at = :until WHERE id {sqlrows.among(dialect)} AND state = 'queued'"
    ).bindparams(sa.bindparam("until", type_=UtcDateTime()))
    session.execute(statement, {"ids": sqlrows.id_list(dialect, sorted(ids)), "until": until})


def depths(session: Session) -> list[tuple[str, int, float]]:
    """For each queue: its name, how many jobs wait, and for how many seconds the first of them has been due."""
    waiting = sa.select(JobRow.queue, sa.func.count(), sa.func.min(JobRow.due_at)).where(JobRow.state == "queued")
    rows = {queue: (count, oldest) for queue, count, oldest in session.execute(waiting.group_by(JobRow.queue))}
    now = clock.now()
    found: list[tuple[str, int, float]] = []
    for queue in QUEUES:
        count, oldest = rows.get(queue, (0, None))
        found.append((queue, count, max(0.0, (now - oldest).total_seconds()) if oldest else 0.0))
    return found
