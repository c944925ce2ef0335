"""Commands that people give for a job: cancel, retry, discard. Events and messages follow after the commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, redis
from app.core.db import after_commit
from app.core.errors import ConfigError, Conflict, NotFound, Unavailable
from app.core.ids import is_uuid
from app.core.logging import get_logger
from app.jobs.admission import admit
from app.jobs.child_rules import AGAIN
from app.jobs.events import publish
from app.jobs.ledger import child_counts, child_moves, unique, views
from app.jobs.ledger.after_moves import after_moves
from app.jobs.models import JobRow
from app.jobs.states import NOT_STARTED
from app.jobs.transition import moved_of

log = get_logger(__name__)


def cancel(session: Session, tenant: str, job_id: str) -> JobRow:
    """Ask the job to stop. A job that has not started never starts.

    A job that awaits stops within 250 ms, one in a sandbox within 2 s. Ended jobs stay as they are. Raises NotFound.
    """
    row = _lock(session, tenant, job_id)
    if row.state in NOT_STARTED:
        row.state, row.finished_at, row.cancel_requested_at = "cancelled", clock.now(), clock.now()
        row.admitted_at, row.cut_children = None, row.open_children > 0
        session.flush()
        after_moves(session, [moved_of(row)], {row.id: row.kind})
    elif row.state == "running" and row.cancel_requested_at is None:
        row.cancel_requested_at = clock.now()
    session.flush()
    if row.state == "running":
        _after_commit(session, partial(notify_workers, [row.id]))
    elif row.state == "cancelled":
        _after_commit(session, partial(publish.announce, [moved_of(row)]))
    return row


def retry(session: Session, tenant: str, job_id: str) -> JobRow:
    """Queue a failed or cancelled job again, its tries counted from 0.

    Raises NotFound, and Conflict in every other state or while another job with its unique key is open.
    """
    row = _lock(session, tenant, job_id)
    if row.state not in ("failed", "cancelled"):
        raise Conflict(f"Job {job_id} is {row.state}; only a failed or cancelled job can be retried", code="job_state")
    for name, value in child_moves.restart_values().items():
        setattr(row, name, value)
    row.family_rule = AGAIN if row.children else None
    key = row.unique_key
    try:
        session.flush()
    except sa.exc.IntegrityError as error:
        raise Conflict(f"Another job with the key {key} is open", code="unique_key") from error
    if unique.take_newer(session, [job_id]):  # its worker died while a newer payload waited for its end
        session.refresh(row)
    if row.parent_id is not None:
        child_counts.uncount(session, row.parent_id, 1)
    room, promoted = admit.room_for(session, row.queue, row.kind, row.tenant, 1, row.priority)
    if room:
        row.admitted_at = clock.now()
        admit.push_after_commit(session, [row], promoted=promoted)
    _after_commit(session, partial(publish.announce, [moved_of(row)]))
    return row


def discard(session: Session, tenant: str, job_id: str) -> JobRow:
    """Remove a failed job from the dead letters; it keeps its row until retention. Raises NotFound, Conflict."""
    row = views.get(session, tenant, job_id, lock=True)
    if row.state != "failed":
        raise Conflict(f"Job {job_id} is {row.state}; only a failed job can be discarded", code="job_state")
    if row.discarded_at is None:
        row.discarded_at = clock.now()
        session.flush()
    return row


def notify_workers(ids: Sequence[str]) -> None:
    """Publish that these jobs were asked to stop. Their rows say so already; workers also read them."""

    def notify(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.publish(redis.CANCEL_CHANNEL, job_id)
            pipeline.execute()

    try:
        redis.push().call(notify)
    except (Unavailable, ConfigError) as error:
        log.info("cancel_not_published", jobs=len(ids), reason=error.message)


def _lock(session: Session, tenant: str, job_id: str) -> JobRow:
    row = None
    if is_uuid(job_id):
        child_counts.lock(session, [job_id])
        statement = sa.select(JobRow).where(JobRow.id == job_id, JobRow.tenant == tenant).with_for_update()
        row = session.execute(statement, execution_options={"populate_existing": True}).scalar_one_or_none()
    if row is None:
        raise NotFound(f"Job {job_id} not found", code="job_not_found")
    return row


def _after_commit(session: Session, run: Callable[[], None]) -> None:
    after_commit(session, f"commands:{id(run)}", lambda: run)
