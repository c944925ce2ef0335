"""Which queued jobs lie in Redis: what their own transaction admits, what is lost there, and what must leave it.

The rest is fed by relays, in fair order: see `shares`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime, after_commit, database
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.admission import limits, push
from app.jobs.admission.push import Ticket
from app.jobs.models import JobRow
from app.jobs.queues import QUEUES

log = get_logger(__name__)


class Room(NamedTuple):
    """How many of so many new jobs may be admitted by their own transaction, and whether they come early."""

    jobs: int
    early: bool = False


def room_for(session: Session, queue: str, kind: str, tenant: str, count: int, priority: int = 0) -> Room:
    """What this says no to, a relay admits in fair order; a tenant that has nothing in a full window gets one in."""
    before = limits.believed(session).before(queue, kind, tenant)
    if before:
        if not any(gate.paused for gate in before):
            push.wake_relay_after_commit(session)
        return Room(0)
    room = push.window.take(queue, count)
    if room:
        return Room(room, early=priority > 0)
    if priority > 0:
        push.wake_relay_after_commit(session)
    if push.window.length(queue) and _comes_new(session, queue, tenant, 0):
        return Room(1, early=True)
    return Room(0)


# Tenants of which we know that they have something in a queue's window, and since when.
_present: dict[tuple[str, str], float] = {}
_MOST_PRESENT = 10_000


def _comes_new(session: Session, queue: str, tenant: str, own: int) -> bool:
    """Whether the tenant has nothing running in the queue and nothing in its window but its `own` latest ones.

    Asked at most four times a second for each tenant: the answer makes it present.
    """
    now = clock.monotonic()
    if now - _present.get((queue, tenant), -push.BELIEF_S) < push.BELIEF_S:
        return False
    if len(_present) >= _MOST_PRESENT:
        _present.clear()
    _present[queue, tenant] = now
    theirs = (JobRow.queue == queue, JobRow.tenant == tenant)
    fed = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.admitted_at.is_not(None), *theirs)
    running = sa.select(JobRow.id).where(JobRow.state == "running", JobRow.worker_id.is_not(None), *theirs)
    if len(session.scalars(fed.limit(own + 1)).all()) > own:
        return False
    return session.scalar(running.limit(1)) is None


def forget() -> None:
    """Believe nothing any more: another database or Redis stands behind the settings."""
    _present.clear()
    limits.forget()
    push.window.forget()


def push_after_commit(session: Session, jobs: Sequence[JobRow], *, early: bool = False) -> None:
    """Push these once the session's transaction is true; what cannot be pushed waits for the relay."""
    waiting: _Outbox = after_commit(session, "dispatch", _Outbox)
    (waiting.early if early else waiting.jobs).extend(jobs)


class _Outbox:
    def __init__(self) -> None:
        self.jobs: list[JobRow] = []
        self.early: list[JobRow] = []

    def __call__(self) -> None:
        try:
            push.push(self.early, place="early")
            push.push(self.jobs)
            self._let_new_ones_in()
        except (Unavailable, ConfigError) as error:
            log.warning("push_failed", jobs=len(self.jobs) + len(self.early), reason=error.message)

    def _let_new_ones_in(self) -> None:
        """A tenant that had nothing in a window, and found others waiting there, comes early with its first job.

        Only now it is known how many wait, and a push that meets nobody pays nothing for this.
        """
        ours: dict[tuple[str, str], list[JobRow]] = {}
        for job in self.jobs:
            ours.setdefault((job.queue, job.tenant), []).append(job)
        for (queue, tenant), jobs in ours.items():
            others = push.window.length(queue) > len(jobs)
            if others and database().read(_comes_new, queue, tenant, len(jobs)):
                push.push(jobs[:1], place="move")


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
    return sql.row_count(session, sa.update(JobRow).where(JobRow.id.in_(moving)).values(admitted_at=None))


def park(session: Session, ids: list[str], until: datetime) -> None:
    """Take queued jobs out of the window until then: no worker here knows their kind."""
    dialect = sql.dialect_of(session)
    statement = sa.text(
        f"UPDATE job SET admitted_at = NULL, due_at = :until WHERE id {sql.among(dialect)} AND state = 'queued'"
    ).bindparams(sa.bindparam("until", type_=UtcDateTime()))
    session.execute(statement, {"ids": sql.ids(dialect, sorted(ids)), "until": until})


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
