"""The queues as people see them: how much waits in each, how long, and who serves it."""

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


def queue_views(session: Session) -> list[dict[str, Any]]:
    """Every queue, in the order in which workers serve them."""
    serving = workers.list_alive(session)
    counts: dict[tuple[str, str], int] = {}
    for state in ("running", "scheduled", "retrying"):  # each by its own index, none of them the whole table's
        query = sa.select(JobRow.queue, sa.func.count()).where(*_indexed(state)).group_by(JobRow.queue)
        counts |= {(state, queue): count for queue, count in session.execute(query)}
    views = []
    for queue, queued, oldest_s in admit.depths(session):
        here = [worker for worker in serving if queue in worker.queues]
        views.append(
            {
                "name": queue,
                "queued": queued,
                "oldest_s": round(oldest_s, 3),
                **{state: counts.get((state, queue), 0) for state in ("running", "scheduled", "retrying")},
                "workers": len(here),
                "slots": sum(worker.threads for worker in here),
                **gate_view(limits.find(session, "queue", queue)),
            }
        )
    return views


def _indexed(state: str) -> Sequence[sa.ColumnElement[bool]]:
    if state == "running":
        return (JobRow.state == "running", JobRow.worker_id.is_not(None))
    return (JobRow.state.in_(("scheduled", "retrying")), JobRow.state == state)


def gate_view(gate: Limit) -> dict[str, Any]:
    """A gate as the API shows it."""
    paused = {"at": moment(gate.paused_at), "by": gate.paused_by, "reason": gate.reason} if gate.paused else None
    return {"name": gate.name, "paused": paused, "running_cap": gate.cap}
