"""Rows of workers: registration, heartbeat, death, and the orders that people give.

A worker is alive while its beat rises. An order is the state in its row, which the claim reads: from its commit on
the worker takes no job, even before it receives the order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app import __version__
from app.core import clock, redis, sql
from app.core.clock import moment
from app.core.db import after_commit
from app.core.errors import ConfigError, Conflict, NotFound, Unavailable
from app.core.ids import is_uuid
from app.core.logging import get_logger
from app.jobs.admission import push
from app.jobs.ledger.ends import free
from app.jobs.ledger.worker_host import process_start, this_host
from app.jobs.models import JobRow, WorkerRow
from app.jobs.transition import Moved

ALIVE = ("running", "paused", "draining")

Order = Literal["pause", "resume", "drain"]
STATES = ("running", "paused", "draining", "stopped", "dead")
# The state that each order sets, and the states it is allowed in.
_ORDERS: dict[Order, tuple[str, tuple[str, ...]]] = {
    "pause": ("paused", ("running", "paused")),
    "resume": ("running", ("paused", "running")),
    "drain": ("draining", ALIVE),
}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as a relay watches it."""

    id: str
    host: str
    pid: int
    pid_birth: int
    beat: int
    queues: list[str]
    threads: int


def register(
    session: Session,
    worker_id: str,
    queues: list[str],
    threads: int,
    health_url: str | None,
    *,
    paused: bool = False,
) -> None:
    session.add(
        WorkerRow(
            id=worker_id,
            host=this_host(),
            pid=os.getpid(),
            pid_birth=process_start(os.getpid()),
            queues=queues,
            threads=threads,
            health_url=health_url,
            state="paused" if paused else "running",
            version=__version__,
            started_at=clock.now(),
            beat_at=clock.now(),
        )
    )


def heartbeat(session: Session, worker_id: str) -> bool:
    """Increment the worker's beat; return False if it was marked dead."""
    alive = sa.update(WorkerRow).where(WorkerRow.id == worker_id, WorkerRow.state.in_(ALIVE))
    return sql.row_count(session, alive.values(beat=WorkerRow.beat + 1, beat_at=clock.now())) == 1


def set_state(session: Session, worker_id: str, state: str) -> None:
    session.execute(
        sa.update(WorkerRow).where(WorkerRow.id == worker_id, WorkerRow.state.in_(ALIVE)).values(state=state)
    )


def list_alive(session: Session) -> list[Worker]:
    """Return all workers that are not recorded as stopped or dead."""
    rows = session.scalars(sa.select(WorkerRow).where(WorkerRow.state.in_(ALIVE)))
    return [Worker(w.id, w.host, w.pid, w.pid_birth, w.beat, w.queues, w.threads) for w in rows]


def list_exited(session: Session, limit: int) -> list[str]:
    """Return ids of workers that stopped or died, the latest first."""
    ended = sa.select(WorkerRow.id).where(WorkerRow.state.not_in(ALIVE))
    return list(session.scalars(ended.order_by(WorkerRow.id.desc()).limit(limit)))


def mark_dead(session: Session, worker_id: str, reason: str, *, seen_beat: int | None = None) -> list[Moved] | None:
    """Mark a worker dead and free the first batch of its jobs; return None if it has beaten since `seen_beat`.

    Called until it frees none. The beat guards it, so any number of relays may try.
    """
    dead = sa.update(WorkerRow).where(WorkerRow.id == worker_id)
    if seen_beat is not None:
        dead = dead.where(WorkerRow.beat == seen_beat)
    if sql.row_count(session, dead.values(state="dead")) != 1:
        return None
    return free(session, worker_id, reason)


def list_orphans(session: Session) -> list[str]:
    """Return ids of dead or unknown workers with running jobs: a claim that crossed its worker's death."""
    living = sa.select(WorkerRow.id).where(WorkerRow.state.in_(ALIVE))
    running = sa.select(JobRow.worker_id).where(JobRow.state == "running", JobRow.worker_id.not_in(living)).distinct()
    return [worker_id for worker_id in session.scalars(running) if worker_id]


def read_orders(session: Session, worker_id: str) -> tuple[str | None, list[str]]:
    """Return the state a worker was put into, and the ids of its running jobs that were asked to stop."""
    state = session.scalar(sa.select(WorkerRow.state).where(WorkerRow.id == worker_id))
    asked = sa.select(JobRow.id).where(
        JobRow.state == "running", JobRow.worker_id == worker_id, JobRow.cancel_requested_at.is_not(None)
    )
    return state, list(session.scalars(asked))


def prune(session: Session, before: datetime) -> None:
    """Delete stopped and dead workers that started before then; attempts keep their ids."""
    session.execute(sa.delete(WorkerRow).where(WorkerRow.started_at < before, WorkerRow.state.not_in(ALIVE)))


def list_workers(
    session: Session, *, states: Sequence[str] = ALIVE, limit: int, before_id: str | None = None
) -> list[dict[str, Any]]:
    """Return workers, the newest first, each with its number of running jobs."""
    query = sa.select(WorkerRow).where(WorkerRow.state.in_(states)).order_by(WorkerRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(WorkerRow.id < before_id)
    rows = list(session.scalars(query))
    return [worker_view(row, running) for row, running in zip(rows, _count_running(session, rows), strict=True)]


def _count_running(session: Session, rows: Sequence[WorkerRow]) -> list[int]:
    query = sa.select(JobRow.worker_id, sa.func.count()).group_by(JobRow.worker_id)
    query = query.where(JobRow.state == "running", JobRow.worker_id.in_([row.id for row in rows]))
    counts = dict(session.execute(query).all())
    return [counts.get(row.id, 0) for row in rows]


def order(session: Session, worker_id: str, command: Order) -> dict[str, Any]:
    """Give a worker an order; repeating it has no effect. Raises NotFound, and Conflict if its state forbids it.

    pause: take no more jobs and finish the running ones. resume: take jobs again. drain: as pause, then end.
    """
    row = session.get(WorkerRow, worker_id, with_for_update=True) if is_uuid(worker_id) else None
    if row is None:
        raise NotFound(f"Worker {worker_id} not found", code="worker_not_found")
    state, allowed = _ORDERS[command]
    if row.state not in allowed:
        raise Conflict(f"Worker {worker_id} is {row.state}; it cannot {command}", code="worker_state")
    if row.state != state:
        row.state = state
        session.flush()
        after_commit(session, f"order:{worker_id}", lambda: lambda: _notify(worker_id))
        push.wake_relay_after_commit(session)
    return worker_view(row, *_count_running(session, [row]))


def _notify(worker_id: str) -> None:
    try:
        redis.push().call(lambda client: client.publish(redis.ORDERS_CHANNEL, worker_id))
    except (Unavailable, ConfigError) as error:
        log.info("order_not_published", worker_id=worker_id, reason=error.message)  # its next heartbeat reads the row


def worker_view(row: WorkerRow, running: int) -> dict[str, Any]:
    """Return a worker as the API shows it; `silent_s` is the time since its last beat."""
    return {
        "id": row.id,
        "state": row.state,
        "host": row.host.split("|")[0],
        "pid": row.pid,
        "queues": row.queues,
        "threads": row.threads,
        "running": running,
        "version": row.version,
        "started_at": moment(row.started_at),
        "beat_at": moment(row.beat_at),
        "silent_s": None if row.beat_at is None else round(max(0.0, (clock.now() - row.beat_at).total_seconds()), 1),
        "health_url": row.health_url,
    }
