"""The workers as people see and steer them: list, pause, resume and drain one.

An order is the state in the worker's row, which the claim itself looks at: from its commit on the worker takes no job,
whether it has heard of it yet or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, redis
from app.core.clock import moment
from app.core.db import after_commit
from app.core.errors import ConfigError, Conflict, NotFound, Unavailable
from app.core.ids import is_uuid
from app.core.logging import get_logger
from app.jobs.admission import push
from app.jobs.ledger.worker_rows import ALIVE
from app.jobs.models import JobRow, WorkerRow

Order = Literal["pause", "resume", "drain"]
STATES = ("running", "paused", "draining", "stopped", "dead")
# What each order asks for, and from which states.
_ORDERS: dict[Order, tuple[str, tuple[str, ...]]] = {
    "pause": ("paused", ("running", "paused")),
    "resume": ("running", ("paused", "running")),
    "drain": ("draining", ALIVE),
}

log = get_logger(__name__)


def list_workers(
    session: Session, *, states: Sequence[str] = ALIVE, limit: int, before_id: str | None = None
) -> list[dict[str, Any]]:
    """The newest first, each with how many jobs it holds."""
    query = sa.select(WorkerRow).where(WorkerRow.state.in_(states)).order_by(WorkerRow.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(WorkerRow.id < before_id)
    rows = list(session.scalars(query))
    return [worker_view(row, held) for row, held in zip(rows, _held(session, rows), strict=True)]


def _held(session: Session, rows: Sequence[WorkerRow]) -> list[int]:
    held = sa.select(JobRow.worker_id, sa.func.count()).group_by(JobRow.worker_id)
    held = held.where(JobRow.state == "running", JobRow.worker_id.in_([row.id for row in rows]))
    counts = dict(session.execute(held).all())
    return [counts.get(row.id, 0) for row in rows]


def order(session: Session, worker_id: str, what: Order) -> dict[str, Any]:
    """Give a worker an order; the same one twice is none. Raises NotFound, and Conflict for one that cannot obey.

    pause: take nothing more, and finish what runs. resume: take work again. drain: as pause, and then end.
    """
    row = session.get(WorkerRow, worker_id, with_for_update=True) if is_uuid(worker_id) else None
    if row is None:
        raise NotFound(f"Worker {worker_id} not found", code="worker_not_found")
    state, allowed = _ORDERS[what]
    if row.state not in allowed:
        raise Conflict(f"Worker {worker_id} is {row.state}; it cannot {what}", code="worker_state")
    if row.state != state:
        row.state = state
        session.flush()
        after_commit(session, f"order:{worker_id}", lambda: lambda: _tell(worker_id))
        push.wake_relay_after_commit(session)
    return worker_view(row, *_held(session, [row]))


def _tell(worker_id: str) -> None:
    try:
        redis.push().call(lambda client: client.publish(redis.ORDERS_CHANNEL, worker_id))
    except (Unavailable, ConfigError) as error:
        log.info("order_not_published", worker_id=worker_id, reason=error.message)  # its next beat reads the row


def worker_view(row: WorkerRow, held: int) -> dict[str, Any]:
    """A worker as the API shows it; `silent_s` is how long ago it was last heard."""
    return {
        "id": row.id,
        "state": row.state,
        "host": row.host.split("|")[0],
        "pid": row.pid,
        "queues": row.queues,
        "threads": row.threads,
        "running": held,
        "version": row.version,
        "started_at": moment(row.started_at),
        "beat_at": moment(row.beat_at),
        "silent_s": None if row.beat_at is None else round(max(0.0, (clock.now() - row.beat_at).total_seconds()), 1),
        "health_url": row.health_url,
    }
