"""Statistics of the queues: waiting jobs, age of the oldest, workers and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.jobs.admission import admit, limits
from app.jobs.admission.limits import Limit
from app.jobs.ledger import workers
from app.jobs.models import JobRow


def read_queue_stats(session: Session) -> list[dict[str, Any]]:
    """Return every queue, in the order in which workers serve them."""
    serving = workers.list_alive(session)
    counts: dict[tuple[str, str], int] = {}
    for state in ("running", "scheduled", "retrying"):  # each by its partial index; a count over the table is slow
        query = sa.select(JobRow.queue, sa.func.count()).where(*_indexed(state)).group_by(JobRow.queue)
        counts |= {(state, queue): count for queue, count in session.execute(query)}
    views = []
    for queue, queued, oldest_s in admit.depths(session):
        serving_queue = [worker for worker in serving if queue in worker.queues]
        views.append(
            {
                "name": queue,
                "queued": queued,
                "oldest_s": round(oldest_s, 3),
                **{state: counts.get((state, queue), 0) for state in ("running", "scheduled", "retrying")},
                "workers": len(serving_queue),
                "slots": sum(worker.threads for worker in serving_queue),
                **limit_view(limits.find(session, "queue", queue)),
            }
        )
    return views


def _indexed(state: str) -> Sequence[sa.ColumnElement[bool]]:
    if state == "running":
        return (JobRow.state == "running", JobRow.worker_id.is_not(None))
    return (JobRow.state.in_(("scheduled", "retrying")), JobRow.state == state)


def limit_view(limit: Limit) -> dict[str, Any]:
    """Return a limit as the API shows it."""
    paused = {"at": moment(limit.paused_at), "by": limit.paused_by, "reason": limit.reason} if limit.paused else None
    return {"name": limit.name, "paused": paused, "running_cap": limit.cap}
