"""Children: a job starts others, waits for them without holding a worker, and goes on with their results.

    if not progress.claim.continues:
        for first in range(0, count, 500):
            await in_transaction(start_photos, progress.claim, first)  # calls children.start(session, claim, jobs)
        raise WaitForChildren(ALL)
    async for child in children.results(progress.claim):
        ...

`ledger.child_counts` counts their ends; a relay acts on what the counts decide.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Unpack

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import read
from app.jobs.admission import quota
from app.jobs.child_rules import AGAIN, ALL, ALWAYS, ANY, Rule, WaitForChildren, max_failures
from app.jobs.ledger import child_moves, claims
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.enqueue import Options, enqueue_many
from app.jobs.models import JobRow

__all__ = [
    "AGAIN",
    "ALL",
    "ALWAYS",
    "ANY",
    "Child",
    "Rule",
    "WaitForChildren",
    "max_failures",
    "results",
    "results_page",
    "start",
]

PAGE = 500
_RESTARTED = ("failed", "cancelled")


class Child(NamedTuple):
    """A child as its parent sees it; `number` is its place among the children."""

    number: int
    id: str
    kind: str
    state: str
    result: dict[str, Any] | None
    error_code: str | None
    error_message: str | None


def start(session: Session, claim: Claim, jobs: Sequence[Any], *, first: int = 0, **options: Unpack[Options]) -> int:
    """Start these jobs as children, numbered from `first`, in this transaction; return how many are new.

    A number that exists stays as it is, so a run that starts again repeats this without harm. After a person's retry
    of the parent, failed children are queued again. A job whose unique key another open job has is neither started
    nor waited for.

    Raises Stale, Cancelled, and LimitReached beyond the tenant's quota of open jobs: the parent then tries again some
    seconds later, when children of earlier batches may have ended.
    """
    claims.hold(session, claim)
    numbers = range(first, first + len(jobs))
    query = sa.select(JobRow.child_index, JobRow.id, JobRow.state).where(
        JobRow.parent_id == claim.id, JobRow.child_index.between(first, first + len(jobs) - 1)
    )
    known = {number: (job_id, state) for number, job_id, state in session.execute(query)}
    missing = [number for number in numbers if number not in known]
    new = _start_missing(session, claim, [jobs[number - first] for number in missing], missing, options)
    if claim.family_rule == AGAIN:
        child_moves.restart(session, claim.id, [job_id for job_id, state in known.values() if state in _RESTARTED])
    return new


def _start_missing(
    session: Session, claim: Claim, jobs: Sequence[Any], numbers: Sequence[int], options: Options
) -> int:
    if not jobs:
        return 0
    inherited: Options = {"request_id": claim.request_id, "traceparent": claim.traceparent}
    made = enqueue_many(session, jobs, tenant=claim.tenant, **(inherited | options))
    new = [(row.id, number) for row, number in zip(made, numbers, strict=True) if row.is_new]
    if new:
        child_moves.adopt(session, claim.id, new)
        quota.check_job_quota(session, claim.tenant)
    return len(new)


def results_page(session: Session, parent_id: str, *, after: int = -1, limit: int = PAGE) -> list[Child]:
    """Return the children whose number is greater than `after`, in their order."""
    columns = (JobRow.child_index, JobRow.id, JobRow.kind, JobRow.state, JobRow.result)
    query = sa.select(*columns, JobRow.error_code, JobRow.error_message).where(
        JobRow.parent_id == parent_id, JobRow.child_index > after
    )
    return [Child(*row) for row in session.execute(query.order_by(JobRow.child_index).limit(limit))]


async def results(claim: Claim) -> AsyncIterator[Child]:
    """Yield all children in their order, read page by page."""
    after = -1
    while page := await read(results_page, claim.id, after=after):
        for child in page:
            yield child
        after = page[-1].number


def has_work(session: Session) -> tuple[bool, bool]:
    """Return whether a parent can be settled, and whether children are to be cancelled."""
    ready = sa.select(JobRow.id).where(JobRow.state == "waiting", JobRow.open_children == 0).limit(1)
    flagged = sa.select(JobRow.id).where(JobRow.cut_children).limit(1)
    return session.scalar(ready) is not None, session.scalar(flagged) is not None
