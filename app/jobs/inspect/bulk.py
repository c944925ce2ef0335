"""Cancel, retry or discard all jobs that match a filter: a job that works in batches and resumes after a crash.

Only jobs that matched at the time of the request change. A job that fails again while the others are being retried is
not retried twice.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.errors import Conflict, InvalidInput, NotFound
from app.jobs.definition import Job
from app.jobs.ledger import child_counts, claims, commands
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.views import JobFilter, conditions
from app.jobs.models import BulkRow, JobRow
from app.jobs.states import OPEN, State
from app.jobs.worker.progress import Progress

Action = Literal["cancel", "retry", "discard"]
BATCH = 100
SAMPLE = 10

_ACTS: dict[Action, Callable[[Session, str, str], JobRow]] = {
    "cancel": commands.cancel,
    "retry": commands.retry,
    "discard": commands.discard,
}
# Allowed states of each action, and its default states.
_STATES: dict[Action, tuple[tuple[State, ...], tuple[State, ...]]] = {
    "cancel": (OPEN, OPEN),
    "retry": (("failed", "cancelled"), ("failed",)),
    "discard": (("failed",), ("failed",)),
}


class BulkFilter(BaseModel):
    """A filter of jobs: all named conditions must hold, and at least one must be named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    states: tuple[State, ...] | None = Field(None, min_length=1, max_length=8)
    kind: str | None = Field(None, max_length=100)
    queue: str | None = Field(None, max_length=32)
    document_id: int | None = Field(None, ge=0, le=2**63 - 1)
    error_code: str | None = Field(None, max_length=100)
    fingerprint: str | None = Field(None, max_length=32)
    parent_id: str | None = Field(None, pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    created_after: datetime | None = None
    created_before: datetime | None = None


class Bulk(Job, kind="jobs.bulk", queue="bulk", time_limit_s=6 * 3600, retry_delays=(5.0, 30.0, 120.0)):
    """An action for the jobs that matched the filter `wanted` at the time `asked_at`.

    Jobs of `except_kinds` stay as they are: the caller may not change them.
    """

    action: Action
    wanted: BulkFilter
    asked_at: datetime
    except_kinds: tuple[str, ...] = ()


def check_filter(action: Action, wanted: BulkFilter) -> BulkFilter:
    """Return the filter. Raises InvalidInput if it is empty, or names states that the action cannot change."""
    if not wanted.model_dump(exclude_none=True):
        raise InvalidInput("filter: name at least one condition", code="filter")
    invalid = [state for state in wanted.states or () if state not in _STATES[action][0]]
    if invalid:
        allowed = ", ".join(_STATES[action][0])
        raise InvalidInput(f"filter: {action} is for jobs that are {allowed}, not {invalid[0]}", code="filter")
    return wanted


def _matching(tenant: str, job: Bulk) -> list[sa.ColumnElement[bool]]:
    fields = job.wanted.model_dump(exclude={"states"})
    states = job.wanted.states or _STATES[job.action][1]
    matching = conditions(tenant, JobFilter(states=states, **fields))
    if job.action != "cancel":
        matching += [JobRow.discarded_at.is_(None), JobRow.finished_at <= job.asked_at]
    # Neither itself nor another bulk job.
    except_kinds = (Bulk.kind, *job.except_kinds)
    return [*matching, JobRow.created_at <= job.asked_at, JobRow.kind.not_in(except_kinds)]


def preview(session: Session, tenant: str, job: Bulk) -> dict[str, Any]:
    """Return the number of matching jobs, by state and by kind, and a sample of their ids."""
    matching = _matching(tenant, job)
    groups = sa.select(JobRow.state, JobRow.kind, sa.func.count()).where(*matching).group_by(JobRow.state, JobRow.kind)
    states: dict[str, int] = {}
    kinds: dict[str, int] = {}
    for state, kind, number in session.execute(groups):
        states[state] = states.get(state, 0) + number
        kinds[kind] = kinds.get(kind, 0) + number
    sample = session.scalars(sa.select(JobRow.id).where(*matching).order_by(JobRow.id).limit(SAMPLE))
    return {"matched": sum(states.values()), "states": states, "kinds": kinds, "sample": list(sample)}


async def run(job: Bulk, progress: Progress) -> dict[str, Any]:
    """Change all matching jobs. After a crash it continues behind the last recorded batch."""
    done, refused, left = await read(_so_far, progress.claim, job)
    total = done + refused + left
    progress.report(done + refused, total, unit="jobs")
    more = True
    while more:
        done, refused, more = await in_transaction(_step, progress.claim, job)
        progress.report(done + refused, max(total, done + refused), unit="jobs")
    return {"action": job.action, "done": done, "refused": refused}


def _so_far(session: Session, claim: Claim, job: Bulk) -> tuple[int, int, int]:
    """Return the numbers of changed, refused and remaining jobs."""
    row = session.get(BulkRow, claim.id) or BulkRow(job_id=claim.id, done=0, refused=0)
    left = sa.select(sa.func.count()).select_from(JobRow).where(*_matching(claim.tenant, job), *_behind(row))
    return row.done, row.refused, session.scalar(left) or 0


def _behind(row: BulkRow) -> list[sa.ColumnElement[bool]]:
    return [] if row.last_id is None else [JobRow.id > row.last_id]


def _step(session: Session, claim: Claim, job: Bulk) -> tuple[int, int, bool]:
    """Change one batch and record it, in one transaction; return changed, refused, and True if jobs may remain."""
    row = session.get(BulkRow, claim.id)
    if row is None:
        row = BulkRow(job_id=claim.id, done=0, refused=0)
        session.add(row)
    query = sa.select(JobRow.id).where(*_matching(claim.tenant, job), *_behind(row)).order_by(JobRow.id).limit(BATCH)
    ids = list(session.scalars(query))
    # Locked in the order of ids, this job among them, like everywhere.
    child_counts.lock(session, sorted([*ids, claim.id]))
    claims.hold(session, claim)
    for job_id in ids:
        try:
            with session.begin_nested():
                _ACTS[job.action](session, claim.tenant, job_id)
            row.done += 1
        except (Conflict, NotFound):  # its state has changed, or another job with its key is open
            row.refused += 1
    if ids:
        row.last_id = ids[-1]
    session.flush()
    return row.done, row.refused, len(ids) == BATCH
