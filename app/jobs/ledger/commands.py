"""What a person asks of a job: cancel it, try it again; with the messages that make it happen at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from app.core import clock, redis
from app.core.db import after_commit
from app.core.errors import ConfigError, Unavailable
from app.core.logging import get_logger
from app.jobs.admission import admit
from app.jobs.events import publish
from app.jobs.ledger import timers
from app.jobs.models import JobRow
from app.jobs.transition import MOVED, Moved

log = get_logger(__name__)


def cancel(session: Session, tenant: str, job_id: str) -> JobRow:
    """Ask the job to stop. What has not started never starts; what awaits stops within 250 ms, a sandbox within 2 s.

    Ended jobs stay as they are. Raises NotFound.
    """
    row = timers.cancel(session, tenant, job_id)
    if row.state == "running":
        _after(session, partial(tell_workers, [row.id]))
    elif row.state == "cancelled":
        _after(session, partial(publish.announce, [_moved(row)]))
    return row


def retry(session: Session, tenant: str, job_id: str) -> JobRow:
    """Queue a failed or cancelled job again, its tries counted from 0. Raises NotFound, Conflict."""
    row = timers.retry(session, tenant, job_id)
    room, early = admit.room_for(session, row.queue, row.kind, row.tenant, 1, row.priority)
    if room:
        row.admitted_at = clock.now()
        admit.push_after_commit(session, [row], early=early)
    _after(session, partial(publish.announce, [_moved(row)]))
    return row


def _after(session: Session, run: Callable[[], None]) -> None:
    after_commit(session, f"control:{id(run)}", lambda: run)


def _moved(row: JobRow) -> Moved:
    return Moved(*(getattr(row, name) for name in MOVED.split(", ")))


def tell_workers(ids: Sequence[str]) -> None:
    """Have the runs of these jobs stopped, wherever they are; for jobs whose cancel is in the ledger already."""

    def tell(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.publish(redis.CANCEL_CHANNEL, job_id)
            pipeline.execute()

    try:
        redis.push().call(tell)
    except (Unavailable, ConfigError) as error:
        log.info("cancel_not_published", jobs=len(ids), reason=error.message)  # the worker's beat reads the ledger
