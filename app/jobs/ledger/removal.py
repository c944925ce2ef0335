"""Deletion of old jobs, for retention."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from app.core.ids import first_uuid7
from app.jobs.models import JobRow
from app.jobs.states import OPEN


def delete_jobs(
    session: Session,
    succeeded_before: datetime | None,
    failed_before: datetime | None,
    *,
    after: str = "",
    limit: int,
) -> list[str]:
    """Delete up to `limit` ended jobs after the id `after`, with all that refers to them; return their ids.

    Succeeded and cancelled jobs are deleted if they ended before `succeeded_before`, failed ones by `failed_before`.
    Children stay while their parent is open: it may still ask for their results.
    """
    parent = aliased(JobRow)
    old = [
        sa.and_(JobRow.state.in_(states), JobRow.finished_at < before)
        for states, before in ((("succeeded", "cancelled"), succeeded_before), (("failed",), failed_before))
        if before is not None
    ]
    if not old:
        return []
    # Ids rise with time: a job made after the latest limit cannot have ended before it.
    latest = max(before for before in (succeeded_before, failed_before) if before is not None)
    query = sa.select(JobRow.id).where(
        JobRow.id < first_uuid7(latest),
        sa.or_(*old),
        ~sa.exists().where(parent.id == JobRow.parent_id, parent.state.in_(OPEN)),
    )
    if after:
        query = query.where(JobRow.id > after)
    query = query.order_by(JobRow.id).limit(limit).with_for_update(skip_locked=True, of=JobRow)
    ids = list(session.scalars(query))
    if ids:
        session.execute(sa.delete(JobRow).where(JobRow.id.in_(ids)), execution_options={"synchronize_session": False})
    return ids
