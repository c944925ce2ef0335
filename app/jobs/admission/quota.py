"""The quota of open jobs, for jobs that jobs and schedules start."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.errors import JobQuotaReached
from app.jobs.models import JobRow
from app.jobs.states import NOT_STARTED

# Open jobs end soon, so a retry is worth it.
RETRY_S = 5.0
_TENANT = sa.table("tenant", sa.column("id"), sa.column("max_open_jobs"))


def open_jobs(session: Session, tenant: str, *, up_to: int | None = None) -> int:
    """Count jobs of the tenant that have not ended, up to `up_to` if given.

    Each part uses its own index: waiting jobs by tenant, running jobs (few) by worker.
    """
    # Literals, not parameters: SQLite uses a partial index only if the statement itself names its condition.
    not_started = JobRow.state.in_([sa.literal_column(f"'{state}'") for state in NOT_STARTED])
    waiting = sa.select(JobRow.id).where(JobRow.tenant == tenant, not_started).limit(up_to)
    running = sa.select(sa.func.count()).where(
        JobRow.state == sa.literal_column("'running'"),
        JobRow.worker_id.is_not(None),
        JobRow.tenant.concat("") == tenant,  # keeps the planner off the index of all jobs of the tenant
    )
    not_started_count = session.scalar(sa.select(sa.func.count()).select_from(waiting.subquery())) or 0
    return not_started_count + (session.scalar(running) or 0)


def check_job_quota(session: Session, tenant: str) -> None:
    """Raise JobQuotaReached if the tenant has too many open jobs, after a job or a schedule started some.

    Takes no lock: parent and schedule hold their own rows. Jobs that start others at the same time may together
    exceed the quota by what they start.
    """
    max_open = session.scalar(sa.select(_TENANT.c.max_open_jobs).where(_TENANT.c.id == tenant))
    if max_open is not None and open_jobs(session, tenant, up_to=max_open + 1) > max_open:
        raise JobQuotaReached(f"the tenant may have {max_open} open jobs at once", RETRY_S)
