"""Change job rows and publish events as the ledger and a worker do, without running either."""

from __future__ import annotations

from typing import Any

from app.core.db import database
from app.jobs.enqueued import EnqueuedJob
from app.jobs.events import publish
from app.jobs.events.publish import JobEvent
from app.jobs.models import JobRow
from app.jobs.states import ENDED


def publish_event(
    job: JobRow | EnqueuedJob,
    percent: float,
    name: str = "progress",
    state: str = "running",
    *,
    seed: int = 0,
) -> int:
    """Publish one event of the job as a worker does, without a change of its row; return its number."""
    progress = {"percent": percent, "stage": "go", "done": percent, "total": 100, "unit": "%", "message": None}
    event = JobEvent(job.id, job.tenant, name, state, 1, progress, seed)  # type: ignore[arg-type]
    return publish.publish([event])[0]


def set_job(job: JobRow | EnqueuedJob, **values: Any) -> None:
    """Change the row without an event."""

    def write(session: Any) -> None:
        row = session.get(JobRow, job.id)
        if values.get("state") in ENDED and row.state == "queued":
            row.state = "running"
            session.flush()
        for name, value in values.items():
            setattr(row, name, value)

    database().transaction(write)
