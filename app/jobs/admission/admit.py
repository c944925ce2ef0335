"""Admission of new jobs to the Redis window by their own transaction.

Relays admit all other jobs in fair order: see `relay.fairness`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import after_commit, database
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.admission import limits, push
from app.jobs.admission.push import Admitted, QueuedRef
from app.jobs.models import JobRow
from app.jobs.queues import QUEUES

log = get_logger(__name__)


class Room(NamedTuple):
    """New jobs that their own transaction may admit; promoted ones are served before the rest of the queue."""

    jobs: int
    promoted: bool = False


def room_for(session: Session, queue: str, kind: str, tenant: str, count: int, priority: int = 0) -> Room:
    """Return the room in the window for `count` new jobs. A relay admits the others in fair order.

    A tenant without a job in a full window gets one in.
    """
    applying = limits.read_cached(session).applying(queue, kind, tenant)
    if applying:
        if not any(limit.paused for limit in applying):
            push.wake_relay_after_commit(session)
        return Room(0)
    room = push.window.take(queue, count)
    if room:
        return Room(room, promoted=priority > 0)
    if priority > 0:
        push.wake_relay_after_commit(session)
    if push.window.length(queue) and _is_new_in_window(session, queue, tenant, 0):
        return Room(1, promoted=True)
    return Room(0)


# Tenants that have a job in a queue's window, with the time of the last check.
_present: dict[tuple[str, str], float] = {}
_MAX_PRESENT = 10_000


def _is_new_in_window(session: Session, queue: str, tenant: str, own: int) -> bool:
    """Return True if the tenant runs nothing in the queue and has only its `own` latest jobs in the window.

    Checked at most four times a second for each tenant: a check makes the tenant present.
    """
    now = clock.monotonic()
    if now - _present.get((queue, tenant), -push.MAX_CACHE_AGE_S) < push.MAX_CACHE_AGE_S:
        return False
    if len(_present) >= _MAX_PRESENT:
        _present.clear()
    _present[queue, tenant] = now
    theirs = (JobRow.queue == queue, JobRow.tenant == tenant)
    fed = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.admitted_at.is_not(None), *theirs)
    running = sa.select(JobRow.id).where(JobRow.state == "running", JobRow.worker_id.is_not(None), *theirs)
    if len(session.scalars(fed.limit(own + 1)).all()) > own:
        return False
    return session.scalar(running.limit(1)) is None


def clear_caches() -> None:
    """Drop all cached state: the settings name another database or Redis."""
    _present.clear()
    limits.clear_cache()
    push.window.clear()


def push_after_commit(session: Session, jobs: Sequence[Admitted], *, promoted: bool = False) -> None:
    """Push these jobs after the commit. Without Redis they wait for the relay."""
    outbox: _Outbox = after_commit(session, "dispatch", _Outbox)
    (outbox.promoted if promoted else outbox.jobs).extend(jobs)


class _Outbox:
    def __init__(self) -> None:
        self.jobs: list[Admitted] = []
        self.promoted: list[Admitted] = []

    def __call__(self) -> None:
        try:
            push.push(self.promoted, place="early")
            push.push(self.jobs)
            self._promote_new_tenants()
        except (Unavailable, ConfigError) as error:
            log.warning("push_failed", jobs=len(self.jobs) + len(self.promoted), reason=error.message)

    def _promote_new_tenants(self) -> None:
        """Promote the first job of a tenant that had nothing in a window where others wait.

        The push has returned how many wait, so this costs nothing where the window was empty.
        """
        ours: dict[tuple[str, str], list[Admitted]] = {}
        for job in self.jobs:
            ours.setdefault((job.queue, job.tenant), []).append(job)
        for (queue, tenant), jobs in ours.items():
            others = push.window.length(queue) > len(jobs)
            if others and database().read(_is_new_in_window, queue, tenant, len(jobs)):
                push.push(jobs[:1], place="move")


def waiting_queues(session: Session, queues: list[str]) -> list[str]:
    """Return those of the queues that have a job to admit."""
    now = clock.now()
    waiting = []
    for queue in queues:
        unfed = sa.select(JobRow.id).where(
            JobRow.state == "queued", JobRow.admitted_at.is_(None), JobRow.queue == queue, JobRow.due_at <= now
        )
        if session.scalar(unfed.limit(1)) is not None:
            waiting.append(queue)
    return waiting


def unclaimed(session: Session, queue: str, older_than: timedelta, limit: int) -> list[QueuedRef]:
    """Return admitted jobs of the queue that no worker has claimed for that long: they wait in Redis or were lost."""
    before = clock.now() - older_than
    columns = (JobRow.id, JobRow.fence, JobRow.kind, JobRow.queue, JobRow.crashes)
    query = sa.select(*columns).where(JobRow.state == "queued", JobRow.admitted_at < before, JobRow.queue == queue)
    return [QueuedRef(*row) for row in session.execute(query.order_by(JobRow.admitted_at).limit(limit))]


def depths(session: Session) -> list[tuple[str, int, float]]:
    """Return for each queue its name, how many jobs wait, and for how many seconds the oldest of them has been due."""
    waiting = sa.select(JobRow.queue, sa.func.count(), sa.func.min(JobRow.due_at)).where(JobRow.state == "queued")
    rows = {queue: (count, oldest) for queue, count, oldest in session.execute(waiting.group_by(JobRow.queue))}
    now = clock.now()
    depths: list[tuple[str, int, float]] = []
    for queue in QUEUES:
        count, oldest = rows.get(queue, (0, None))
        depths.append((queue, count, max(0.0, (now - oldest).total_seconds()) if oldest else 0.0))
    return depths
