"""How many jobs a tenant has open, and whether those that jobs and schedules start are too many."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.errors import JobQuotaReached
from app.jobs.models import JobRow
from app.jobs.states import NOT_STARTED

# Jobs end by themselves: it is worth while to ask again so soon.
RETRY_S = 5.0
_TENANT = sa.table("tenant", sa.column("id"), sa.column("max_open_jobs"))


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


def hold_to_quota(session: Session, tenant: str) -> None:
    """After jobs were made that no request asked for. Raises LimitReached where the tenant has too many open now.

    Without the lock that requests pass under: a parent holds its own row already, and a schedule its own. So those
    that start jobs at the very same time may together pass the quota by what they start.
    """
    most = session.scalar(sa.select(_TENANT.c.max_open_jobs).where(_TENANT.c.id == tenant))
    if most is not None and open_jobs(session, tenant, up_to=most + 1) > most:
        raise JobQuotaReached(f"the tenant may have {most} open jobs at once", RETRY_S)
