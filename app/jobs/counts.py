"""How many jobs a tenant has open."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.jobs.models import JobRow
from app.jobs.states import NOT_STARTED


def open_jobs(session: Session, tenant: str, *, up_to: int | None = None) -> int:
    """Jobs of the tenant that have not ended; counted no further than `up_to`, where only that matters.

    Each part has an index of its own: those that wait by tenant, those that run by worker, of which there are few.
    """
    # Written out and not bound: SQLite takes an index of some rows only where the statement itself says which.
    not_started = JobRow.state.in_([sa.literal_column(f"'{state}'") for state in NOT_STARTED])
    waiting = sa.select(JobRow.id).where(JobRow.tenant == tenant, not_started).limit(up_to)
    running = sa.select(sa.func.count()).where(
        JobRow.state == sa.literal_column("'running'"),
        JobRow.worker_id.is_not(None),
        JobRow.tenant.concat("") == tenant,  # not by the index of the tenant's jobs, which has all that ever were
    )
    found = session.scalar(sa.select(sa.func.count()).select_from(waiting.subquery())) or 0
    return found + (session.scalar(running) or 0)
