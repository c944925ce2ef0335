"""A job that starts others, waits for them without holding a worker, and goes on with their results.

    if not progress.claim.continues:
        for first in range(0, count, 500):
            await in_transaction(start_photos, progress.claim, first)  # calls families.start(session, claim, jobs)
        raise WaitForChildren(ALL)
    async for child in families.results(progress.claim):
        ...

The counts are kept by `kinship`; what they decide is done here, by whichever relay looks first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Unpack

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import read
from app.jobs.admission import admit, push, quota
from app.jobs.ledger import child_counts, claims
from app.jobs.ledger.child_counts import AGAIN, ALL, ANY, ANYHOW, Rule, WaitForChildren, at_most
from app.jobs.ledger.claims import Claim, Moved, call_on_end_of
from app.jobs.ledger.enqueue import Options, enqueue_many
from app.jobs.models import JOB, JobRow
from app.jobs.states import NOT_STARTED, OPEN
from app.jobs.transition import MOVED, typed

__all__ = [
    "AGAIN",
    "ALL",
    "ANY",
    "ANYHOW",
    "Child",
    "Rule",
    "WaitForChildren",
    "at_most",
    "results",
    "results_page",
    "start",
]

PAGE = 500
CUT_AT_ONCE = 500
PARENTS_AT_ONCE = 100


class Child(NamedTuple):
    """A child as its parent sees it; `number` is its place in the family."""

    number: int
    id: str
    kind: str
    state: str
    result: dict[str, Any] | None
    error_code: str | None
    error_message: str | None


def start(session: Session, claim: Claim, jobs: Sequence[Any], *, first: int = 0, **options: Unpack[Options]) -> int:
    """Start these as children number `first` and on, in this transaction, which holds the parent; how many are new.

    A number that is there already stays as it is, so a run that begins anew repeats this harmlessly; after a person's
    retry of the parent, those that had failed are queued again. A child whose unique key another open job has is
    neither started nor waited for. Raises Stale, Cancelled, and LimitReached beyond the tenant's quota of open jobs:
    then the parent tries again some seconds later, when children of the batches before may have ended.
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
        _start_again(session, claim, [job_id for job_id, state in known.values() if state in ("failed", "cancelled")])
    return new


def _start_missing(
    session: Session, claim: Claim, jobs: Sequence[Any], numbers: Sequence[int], options: Options
) -> int:
    if not jobs:
        return 0
    inherited: Options = {"request_id": claim.request_id, "traceparent": claim.traceparent}
    made = enqueue_many(session, jobs, tenant=claim.tenant, **(inherited | options))
    new = [(row.id, number) for row, number in zip(made, numbers, strict=True) if row.is_new]
    dialect = sql.dialect_of(session)
    columns = {"key_id": "id", "number": "int"}
    parent = "CAST(:parent AS uuid)" if dialect == "postgresql" else ":parent"
    adopt = f"UPDATE job SET parent_id = {parent}, child_index = number FROM {sql.rows(dialect, columns)} "
    rows = [{"key_id": job_id, "number": number} for job_id, number in new]
    where = "WHERE job.id = key_id" + (f" AND job.id {sql.among(dialect)}" if dialect == "postgresql" else "")
    ids = {"ids": sql.ids(dialect, [job_id for job_id, _ in new])} if dialect == "postgresql" else {}
    session.execute(sa.text(adopt + where), {"rows": sql.encode_rows(dialect, rows), "parent": claim.id, **ids})
    more = {"children": JOB.c.children + len(new), "open_children": JOB.c.open_children + len(new)}
    session.execute(sa.update(JOB).where(JOB.c.id == claim.id).values(more))
    if new:
        quota.hold_to_quota(session, claim.tenant)
    return len(new)


def _start_again(session: Session, claim: Claim, ids: list[str]) -> None:
    """Queue these failed children again, but those whose unique key another job has taken meanwhile."""
    other = JOB.alias("other")
    taken = sa.exists().where(
        other.c.tenant == JOB.c.tenant,
        other.c.kind == JOB.c.kind,
        other.c.unique_key == JOB.c.unique_key,
        other.c.state.in_(OPEN),
    )
    again = sa.update(JOB).where(JOB.c.id.in_(ids), JOB.c.state.in_(("failed", "cancelled")), ~taken)
    child_counts.lock(session, ids)
    reopened = session.execute(again.values(child_counts.as_new()).returning(JOB.c.id)).all() if ids else []
    if reopened:
        child_counts.uncount(session, claim.id, len(reopened))
        push.wake_relay_after_commit(session)


def results_page(session: Session, parent_id: str, *, after: int = -1, limit: int = PAGE) -> list[Child]:
    """The children whose number is greater than `after`, in their order."""
    columns = (JobRow.child_index, JobRow.id, JobRow.kind, JobRow.state, JobRow.result)
    query = sa.select(*columns, JobRow.error_code, JobRow.error_message).where(
        JobRow.parent_id == parent_id, JobRow.child_index > after
    )
    return [Child(*row) for row in session.execute(query.order_by(JobRow.child_index).limit(limit))]


async def results(claim: Claim) -> AsyncIterator[Child]:
    """All children in their order, read page by page."""
    after = -1
    while page := await read(results_page, claim.id, after=after):
        for child in page:
            yield child
        after = page[-1].number


# What the counts have decided


def something_to_do(session: Session) -> tuple[bool, bool]:
    """Whether a family has settled, and whether children of one are to be cancelled."""
    settled = sa.select(JobRow.id).where(JobRow.state == "waiting", JobRow.open_children == 0).limit(1)
    cut = sa.select(JobRow.id).where(JobRow.cut_children).limit(1)
    return session.scalar(settled) is not None, session.scalar(cut) is not None


def settle(session: Session, limit: int = PARENTS_AT_ONCE) -> list[Moved]:
    """waiting → queued for parents whose children have ended by their rule, → failed for the others."""
    dialect = sql.dialect_of(session)
    ready = sa.select(JobRow.id).where(JobRow.state == "waiting", JobRow.open_children == 0)
    ids = child_counts.lock(session, ready.order_by(JobRow.id).limit(limit))
    if not ids:
        return []
    parameters = {"ids": sql.ids(dialect, ids), "now": clock.now()}
    found = session.execute(_settle_sql(dialect), parameters).all()
    moved = [Moved(*row[:-1]) for row in found]
    child_counts.count(session, moved)
    call_on_end_of(session, moved, {row.id: row.kind for row in found}, apart=True)
    _admit(session, [move.id for move in moved if move.state == "queued"])
    return moved


def _admit(session: Session, ids: list[str]) -> None:
    """Let these go on at once where there is room; the others are admitted in their turn."""
    for row in session.scalars(sa.select(JobRow).where(JobRow.id.in_(ids)).order_by(JobRow.id)) if ids else ():
        room, early = admit.room_for(session, row.queue, row.kind, row.tenant, 1, row.priority)
        if room:
            row.admitted_at = clock.now()
            admit.push_after_commit(session, [row], early=early)


@lru_cache
def _settle_sql(dialect: str) -> sa.TextualSelect:
    held = child_counts.held()
    columns = MOVED + ", kind"
    counted = "(failed_children - settled_failed) || ' of ' || (children - settled_children)"
    return typed(
        f"""
        UPDATE job SET state = CASE WHEN {held} THEN 'queued' ELSE 'failed' END, admitted_at = NULL,
               due_at = CASE WHEN {held} THEN :now ELSE due_at END,
               finished_at = CASE WHEN {held} THEN NULL ELSE :now END,
               settled_children = CASE WHEN {held} THEN children ELSE settled_children END,
               settled_failed = CASE WHEN {held} THEN failed_children ELSE settled_failed END,
               error_type = CASE WHEN {held} THEN NULL ELSE 'ChildrenFailed' END,
               error_code = CASE WHEN {held} THEN NULL ELSE 'children_failed' END,
               error_message = CASE WHEN NOT {held} THEN {counted} || ' children failed; the rule was ' || family_rule
                               END,
               fingerprint = CASE WHEN {held} THEN NULL ELSE 'children_failed' END, cut_children = false
        WHERE id {sql.among(dialect)} AND state = 'waiting' AND open_children = 0
        RETURNING {columns}""",
        columns,
        "now",
    )


class Cut(NamedTuple):
    """Children that were cancelled, the running ones that were asked to stop, and whether more are left."""

    moved: list[Moved]
    asked: list[str]
    more: bool


def cut(session: Session, limit: int = CUT_AT_ONCE) -> Cut:
    """Cancel open children of parents that ended badly or whose rule has decided; called until none is left."""
    flagged = sa.select(JobRow.id).where(JobRow.cut_children).order_by(JobRow.id).limit(PARENTS_AT_ONCE)
    parents = list(session.scalars(flagged.with_for_update(skip_locked=True)))
    open_now = (JobRow.parent_id.in_(parents), JobRow.state.in_(OPEN), JobRow.cancel_requested_at.is_(None))
    ids = (
        child_counts.lock(session, sa.select(JobRow.id).where(*open_now).order_by(JobRow.id).limit(limit))
        if parents
        else []
    )
    now = clock.now()
    chosen = JOB.c.id.in_(ids)
    stopped = {"state": "cancelled", "finished_at": now, "cancel_requested_at": now, "admitted_at": None}
    follow = {"cut_children": JOB.c.open_children > 0}
    columns = [JOB.c[name] for name in (MOVED + ", kind").split(", ")]
    never_start = sa.update(JOB).where(chosen, JOB.c.state.in_(NOT_STARTED)).values(stopped | follow)
    found = session.execute(never_start.returning(*columns)).all() if ids else []
    asking = sa.update(JOB).where(chosen, JOB.c.state == "running", JOB.c.cancel_requested_at.is_(None))
    asked = list(session.scalars(asking.values(cancel_requested_at=now).returning(JOB.c.id))) if ids else []
    moved = [Moved(*row[:-1]) for row in found]
    child_counts.count(session, moved)
    call_on_end_of(session, moved, {row.id: row.kind for row in found}, apart=True)
    if len(ids) < limit and parents:
        session.execute(sa.update(JOB).where(JOB.c.id.in_(parents)).values(cut_children=False))
    return Cut(moved, asked, more=bool(parents) and (len(ids) == limit or bool(moved)))
