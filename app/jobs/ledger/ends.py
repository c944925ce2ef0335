"""Ends of claims: what a worker reports, and what becomes of the jobs of a dead worker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime
from app.jobs.child_rules import Wait
from app.jobs.definition import Debounce, definition
from app.jobs.ledger import child_counts, unique
from app.jobs.ledger.after_moves import after_moves, after_returned_moves
from app.jobs.ledger.claims import lock_sql, same_claim
from app.jobs.models import JobRow
from app.jobs.states import CRASHES_BEFORE_ALONE, Outcome, State
from app.jobs.transition import MOVED, MOVED_AND_KIND, Moved, typed

# Where workers also die without the job, its crashes prove little: it is tried alone up to this often.
MAX_CRASHES = 10
YOUNG = timedelta(minutes=10)
FREE_BATCH = 1000


class End(NamedTuple):
    """The end of one claim."""

    id: str
    fence: int
    kind: str
    state: State
    outcome: Outcome
    tries: int
    finished_at: datetime
    started_at: datetime | None = None
    due_at: datetime | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    fingerprint: str | None = None
    traceback: str | None = None
    result: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    parent_id: str | None = None
    wait: Wait | None = None


_END = {
    "key_id": "id",
    "key_fence": "int",
    "new_state": "text",
    "new_outcome": "text",
    "new_tries": "int",
    "new_due_at": "time",
    "new_started_at": "time",
    "new_finished_at": "time",
    "new_error_type": "text",
    "new_error_code": "text",
    "new_error_message": "text",
    "new_fingerprint": "text",
    "new_traceback": "text",
    "new_result": "json",
    "new_progress": "json",
}
_ATTEMPT = (
    "INSERT INTO attempt (job_id, fence, worker_id, claimed_at, started_at, finished_at, outcome, error_type, "
    "error_message, traceback) SELECT id, fence, worker_id, claimed_at, "
)


@lru_cache
def _finish_sql(dialect: str) -> sa.TextualSelect:
    # A cancel request wins over another try, not over an end.
    cancelled = "cancel_requested_at IS NOT NULL AND new_state IN ('retrying', 'queued', 'waiting')"
    ended = "new_state IN ('succeeded', 'failed', 'cancelled')"
    return typed(
        f"""
        UPDATE job SET state = CASE WHEN {cancelled} THEN 'cancelled' ELSE new_state END,
               tries = new_tries, due_at = COALESCE(new_due_at, due_at), admitted_at = NULL,
               started_at = COALESCE(new_started_at, started_at),
               finished_at = CASE WHEN {ended} OR ({cancelled}) THEN new_finished_at END,
               error_type = new_error_type, error_code = new_error_code, error_message = new_error_message,
               fingerprint = new_fingerprint, result = new_result, progress = COALESCE(new_progress, progress),
               cut_children = open_children > 0 AND (new_state IN ('failed', 'cancelled') OR ({cancelled}))
        FROM {sql.rows(dialect, _END)} WHERE {same_claim(dialect)}
        RETURNING {MOVED}""",
        MOVED,
    )


@lru_cache
def _attempts_sql(dialect: str) -> sa.TextClause:
    return sa.text(
        f"{_ATTEMPT} COALESCE(new_started_at, started_at), new_finished_at, new_outcome, new_error_type, "
        f"new_error_message, new_traceback FROM {sql.rows(dialect, _END)} JOIN job ON {same_claim(dialect)} "
        "WHERE true ON CONFLICT DO NOTHING"
    )


def finish(session: Session, ends: Sequence[End], *, call_on_end: bool = True) -> list[Moved]:
    """Write the ends of these claims and return the moves; an end whose fence has moved is dropped.

    Calls `on_end` of each job that ended, in this transaction.
    """
    dialect = sql.dialect_of(session)
    ids = sql.ids(dialect, [end.id for end in ends])
    parents = {end.parent_id for end in ends if end.parent_id}
    if dialect == "postgresql" and (parents or len(ends) > 1):
        session.execute(lock_sql(dialect), {"ids": sql.ids(dialect, {end.id for end in ends} | parents)})
    ends = _with_newer_payloads(session, ends)
    rows = {"rows": sql.encode_rows(dialect, [_end_row(end) for end in ends]), "ids": ids}
    session.execute(_attempts_sql(dialect), rows)
    _merge_snoozes(session, [end.id for end in ends if end.outcome == "snoozed"])
    moved = [Moved(*row) for row in session.execute(_finish_sql(dialect), rows).all()]
    moved = child_counts.begin_waiting(session, moved, {end.id: (end.kind, end.wait) for end in ends if end.wait})
    after_moves(session, moved, {end.id: end.kind for end in ends} if call_on_end else {})
    return moved


def _merge_snoozes(session: Session, job_ids: Sequence[str]) -> None:
    """Merge the last two attempts of each job if both ended snoozed: a job that polls would fill the table."""
    if not job_ids:
        return
    dialect = sql.dialect_of(session)
    parameters = {"ids": sql.ids(dialect, job_ids)}
    session.execute(_extend_sql(dialect), parameters)
    session.execute(_drop_merged_sql(dialect), parameters)


@lru_cache
def _extend_sql(dialect: str) -> sa.TextClause:
    return sa.text(
        "UPDATE attempt SET repeats = before.repeats + 1, claimed_at = before.claimed_at, "
        "started_at = before.started_at FROM attempt AS before WHERE before.job_id = attempt.job_id "
        "AND before.fence = attempt.fence - 1 AND before.outcome = 'snoozed' AND attempt.outcome = 'snoozed' "
        f"AND attempt.job_id {sql.among(dialect)}"
    )


@lru_cache
def _drop_merged_sql(dialect: str) -> sa.TextClause:
    return sa.text(
        f"DELETE FROM attempt WHERE job_id {sql.among(dialect)} AND outcome = 'snoozed' AND EXISTS (SELECT 1 "
        "FROM attempt AS later WHERE later.job_id = attempt.job_id AND later.fence = attempt.fence + 1 "
        "AND later.outcome = 'snoozed')"
    )


def _with_newer_payloads(session: Session, ends: Sequence[End]) -> Sequence[End]:
    """Return the ends; a debounced job that got a newer payload while it ran is queued again."""
    debounced = [end for end in ends if isinstance(getattr(definition(end.kind), "unique", None), Debounce)]
    if not debounced:
        return ends
    fences = {end.id: end.fence for end in debounced if end.state not in ("waiting", "cancelled")}
    running = sa.select(JobRow.id, JobRow.fence).where(JobRow.id.in_(fences), JobRow.state == "running")
    running = running.where(JobRow.cancel_requested_at.is_(None)).order_by(JobRow.id).with_for_update()
    ours = [job_id for job_id, fence in session.execute(running) if fence == fences[job_id]]
    due = unique.take_newer(session, ours)
    return [
        end._replace(state="queued" if end.state == "queued" else "retrying", tries=0, due_at=due[end.id], result=None)
        if end.id in due
        else end
        for end in ends
    ]


def _end_row(end: End) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key_id": end.id,
        "key_fence": end.fence,
        "new_state": end.state,
        "new_outcome": end.outcome,
        "new_tries": end.tries,
        "new_due_at": end.due_at,
        "new_started_at": end.started_at,
        "new_finished_at": end.finished_at,
        "new_result": end.result,
        "new_progress": end.progress,
    }
    if end.error_type is not None:
        row |= {
            "new_error_type": end.error_type,
            "new_error_code": end.error_code,
            "new_error_message": end.error_message,
            "new_fingerprint": end.fingerprint,
            "new_traceback": end.traceback,
        }
    return row


@lru_cache
def _free_sql(dialect: str) -> sa.TextualSelect:
    died = "started_at IS NOT NULL"
    # A young worker that died without ever running the job: something else kills workers here.
    others_die = f"""
        crashes < {MAX_CRASHES - 1} AND EXISTS (
            SELECT 1 FROM worker WHERE worker.state = 'dead' AND worker.started_at > :young
               AND worker.id <> job.worker_id AND worker.id NOT IN (
                SELECT attempt.worker_id FROM attempt WHERE attempt.job_id = job.id AND attempt.outcome = 'died'))"""
    poison = f"{died} AND crashes >= {CRASHES_BEFORE_ALONE} AND NOT ({others_die})"
    ended = f"cancel_requested_at IS NOT NULL OR ({poison})"
    columns = MOVED_AND_KIND
    return typed(
        f"""
        WITH moving AS MATERIALIZED (
            SELECT id FROM job WHERE state = 'running' AND worker_id = {sql.id_cast(dialect, "worker")}
            ORDER BY id LIMIT {FREE_BATCH}{sql.for_update(dialect)})
        UPDATE job SET crashes = CASE WHEN {died} THEN crashes + 1 ELSE crashes END, admitted_at = NULL,
               state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                            WHEN {poison} THEN 'failed' ELSE 'queued' END,
               finished_at = CASE WHEN {ended} THEN :now END,
               error_type = CASE WHEN {poison} THEN 'Poison' END, error_code = CASE WHEN {poison} THEN 'poison' END,
               error_message = CASE WHEN {poison} THEN :reason END,
               fingerprint = CASE WHEN {poison} THEN 'poison' END, cut_children = open_children > 0 AND ({ended})
        WHERE id IN (SELECT id FROM moving)
        RETURNING {columns}""",
        columns,
        "now",
        "young",
    )


def free(session: Session, worker_id: str, reason: str) -> list[Moved]:
    """Move up to FREE_BATCH running jobs of a dead worker to queued, failed (poison) or cancelled; return the moves."""
    dialect, now = sql.dialect_of(session), clock.now()
    running = sa.select(JobRow.id).where(JobRow.state == "running", JobRow.worker_id == worker_id)
    child_counts.lock(session, running.where(JobRow.parent_id.is_not(None)).order_by(JobRow.id).limit(FREE_BATCH))
    parameters = {"worker": worker_id, "now": now, "young": now - YOUNG}
    parameters["reason"] = f"its worker died again while it ran alone: {reason}"
    rows = session.execute(_free_sql(dialect), parameters).all()
    if not rows:
        return []
    written = sa.text(
        f"{_ATTEMPT} started_at, :now, 'died', 'WorkerDied', CAST(:reason AS text), NULL FROM job "
        f"WHERE id {sql.among(dialect)} ON CONFLICT DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    session.execute(written, {"ids": sql.ids(dialect, [row.id for row in rows]), "now": now, "reason": reason})
    return after_returned_moves(session, rows)
