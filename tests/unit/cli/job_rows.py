"""Change job rows and publish events as the ledger and a worker do, without running either."""

from __future__ import annotations

from typing import Any

from app.core.db import database
from app.jobs.enqueued import EnqueuedJob
from app.jobs.events import publish
from app.jobs.events.publish import Event
from app.jobs.models import JobRow
from app.jobs.states import ENDED


def set_job(job: EnqueuedJob, **values: Any) -> None:
    """Change the row without an event."""

    def write(session: Any) -> None:
        row = session.get(JobRow, job.id)
        if values.get("state") in ENDED and row.state == "queued":
            row.state = "running"
            session.flush()
        for name, value in values.items():
            setattr(row, name, value)

    database().transaction(write)


def publish_event(job: EnqueuedJob, percent: float, name: str = "progress", state: str = "running") -> None:
    """Publish an event of the job, without a change of its row."""
    publish.publish([Event(job.id, job.tenant, name, state, 1, {"percent": percent})])  # type: ignore[arg-type]
