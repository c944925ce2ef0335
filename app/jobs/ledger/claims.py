"""The ledger: what a worker does to a job, each move one statement guarded by state and fence.

Together with `moves` (what people and time do), `admission` and `unique` the only code that writes a job row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime
from app.core.errors import Cancelled, Stale
from app.core.logging import get_logger
from app.jobs.definition import Debounce, definition
from app.jobs.ledger import child_counts, end_webhooks, unique
from app.jobs.ledger.child_counts import Wait
from app.jobs.models import JobRow
from app.jobs.states import CRASHES_BEFORE_ALONE as CRASHES_BEFORE_ALONE
from app.jobs.states import ENDED, Outcome, State
from app.jobs.transition import MOVED as MOVED
from app.jobs.transition import Moved as Moved
from app.jobs.transition import typed as _typed

# Where workers die without the job as well, its deaths prove nothing, and it is tried again, alone, up to this often.
MOST_CRASHES = 10
YOUNG = timedelta(minutes=10)
FREE_BATCH = 1000

log = get_logger(__name__)


class Claim(NamedTuple):
    """A job that this process may run: the fence says for how long. The order is that of _CLAIMED."""

    id: str
    fence: int
    tenant: str
    kind: str
    queue: str
    payload: dict[str, Any]
    payload_version: int
    tries: int
    max_tries: int
    crashes: int
    due_at: datetime
    claimed_at: datetime
    document_id: int | None
    request_id: str | None
    progress: dict[str, Any] | None
    traceparent: str | None
    parent_id: str | None
    family_rule: str | None
    worker_id: str
    capped: bool = False  # when it ends, another may pass its gate

    @property
    def continues(self) -> bool:
        """Whether the job has waited for its children, they have ended, and it goes on with their results."""
        return self.family_rule not in (None, child_counts.AGAIN)

    @property
    def must_mark_start(self) -> bool:
        """Whether an earlier claim ended uncounted: then its start is on record before its code runs, so that a job
        which kills its process at once is counted all the same."""
        return self.fence > self.tries + 1


class End(NamedTuple):
    """What became of one claim."""

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


_CLAIMED = (
    "id, fence, tenant, kind, queue, payload, payload_version, tries, max_tries, crashes, due_at, claimed_at, "
    "document_id, request_id, progress, traceparent, parent_id, family_rule"
)


def _dialect(session: Session) -> str:
    return sql.dialect_of(session)


def _for_update(dialect: str, *, skip: bool = False) -> str:
    if dialect == "sqlite":
        return ""
    return " FOR UPDATE SKIP LOCKED" if skip else " FOR UPDATE"


_OPEN_GATES = "".join(
    f"""
               AND NOT EXISTS (SELECT 1 FROM gate WHERE scope = '{scope}' AND name = job.{scope} AND (
                   paused_at IS NOT NULL OR running_cap IS NOT NULL OR declared_cap IS NOT NULL))"""
    for scope in ("queue", "kind", "tenant")
)


@lru_cache
def _claim_sql(dialect: str, past_gates: bool) -> sa.TextualSelect:
    return _typed(
        f"""
        UPDATE job SET state = 'running', fence = fence + 1, worker_id = CAST(:worker AS {_id_type(dialect)}),
               claimed_at = :now, started_at = NULL
        WHERE id IN (
            SELECT id FROM job WHERE id {sql.among(dialect)} AND state = 'queued'
               AND (expires_at IS NULL OR expires_at > :now)
               AND CASE WHEN :alone THEN crashes >= {CRASHES_BEFORE_ALONE} ELSE crashes < {CRASHES_BEFORE_ALONE} END
               AND EXISTS (SELECT 1 FROM worker WHERE id = CAST(:worker AS {_id_type(dialect)}) AND state = 'running')
               {"" if past_gates else _OPEN_GATES}
            ORDER BY id{_for_update(dialect)})
        RETURNING {_CLAIMED}""",
        _CLAIMED,
        "now",
    )


def _id_type(dialect: str) -> str:
    return "uuid" if dialect == "postgresql" else "text"


def claim(
    session: Session, ids: Sequence[str], worker_id: str, *, alone: bool = False, past_gates: bool = False
) -> list[Claim]:
    """queued → running for those of the ids that still are, in the order given; the rest is somebody else's.

    A job that crashed twice is only claimed with `alone`, and with `alone` nothing else is. One before a gate is only
    claimed with `past_gates`; `gated` says when it may.
    """
    dialect = _dialect(session)
    parameters = {"ids": sql.ids(dialect, ids), "worker": worker_id, "now": clock.now(), "alone": alone}
    rows = session.execute(_claim_sql(dialect, past_gates), parameters).all()
    place = {job_id: position for position, job_id in enumerate(ids)}
    claims = [Claim._make((*row, worker_id, False)) for row in rows]
    return sorted(claims, key=lambda claimed: place[claimed.id])


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


def _right_claim(dialect: str) -> str:
    """The condition that joins a row of ours to its job; PostgreSQL is shown the way by its index, too."""
    same = "job.id = key_id AND job.fence = key_fence AND job.state = 'running'"
    return f"{same} AND job.id {sql.among(dialect)}" if dialect == "postgresql" else same


@lru_cache
def _finish_sql(dialect: str) -> sa.TextualSelect:
    # A cancel that was asked for meanwhile wins over another try, not over an end.
    cancelled = "cancel_requested_at IS NOT NULL AND new_state IN ('retrying', 'queued', 'waiting')"
    ended = "new_state IN ('succeeded', 'failed', 'cancelled')"
    return _typed(
        f"""
        UPDATE job SET state = CASE WHEN {cancelled} THEN 'cancelled' ELSE new_state END,
               tries = new_tries, due_at = COALESCE(new_due_at, due_at), admitted_at = NULL,
               started_at = COALESCE(new_started_at, started_at),
               finished_at = CASE WHEN {ended} OR ({cancelled}) THEN new_finished_at END,
               error_type = new_error_type, error_code = new_error_code, error_message = new_error_message,
               fingerprint = new_fingerprint, result = new_result, progress = COALESCE(new_progress, progress),
               cut_children = open_children > 0 AND (new_state IN ('failed', 'cancelled') OR ({cancelled}))
        FROM {sql.rows(dialect, _END)} WHERE {_right_claim(dialect)}
        RETURNING {MOVED}""",
        MOVED,
    )


@lru_cache
def _attempts_sql(dialect: str) -> sa.TextClause:
    return sa.text(
        f"{_ATTEMPT} COALESCE(new_started_at, started_at), new_finished_at, new_outcome, new_error_type, "
        f"new_error_message, new_traceback FROM {sql.rows(dialect, _END)} JOIN job ON {_right_claim(dialect)} "
        "WHERE true ON CONFLICT DO NOTHING"
    )


@lru_cache
def _lock_sql(dialect: str) -> sa.TextClause:
    return sa.text(f"SELECT id FROM job WHERE id {sql.among(dialect)} ORDER BY id FOR UPDATE")


def finish(session: Session, ends: Sequence[End], *, call_on_end: bool = True) -> list[Moved]:
    """Write what became of these claims; those whose fence has moved are dropped. Calls `on_end` of what ended."""
    dialect = _dialect(session)
    ids = sql.ids(dialect, [end.id for end in ends])
    parents = {end.parent_id for end in ends if end.parent_id}
    if dialect == "postgresql" and (parents or len(ends) > 1):
        session.execute(_lock_sql(dialect), {"ids": sql.ids(dialect, {end.id for end in ends} | parents)})
    ends = _with_newer_payloads(session, ends)
    rows = {"rows": sql.encode_rows(dialect, [_end_row(end) for end in ends]), "ids": ids}
    session.execute(_attempts_sql(dialect), rows)
    moved = [Moved(*row) for row in session.execute(_finish_sql(dialect), rows).all()]
    moved = child_counts.begin_waiting(session, moved, {end.id: (end.kind, end.wait) for end in ends if end.wait})
    child_counts.count(session, moved)
    if call_on_end:
        call_on_end_of(session, moved, {end.id: end.kind for end in ends})
    else:
        end_webhooks.tell_ends(session, moved)
    return moved


def _with_newer_payloads(session: Session, ends: Sequence[End]) -> Sequence[End]:
    """The ends, those of debounced jobs as another run where a newer payload came while they ran."""
    debounced = [end for end in ends if isinstance(getattr(definition(end.kind), "unique", None), Debounce)]
    if not debounced:
        return ends
    fences = {end.id: end.fence for end in debounced if end.state not in ("waiting", "cancelled")}
    held = sa.select(JobRow.id, JobRow.fence).where(JobRow.id.in_(fences), JobRow.state == "running")
    held = held.where(JobRow.cancel_requested_at.is_(None)).order_by(JobRow.id).with_for_update()
    ours = [job_id for job_id, fence in session.execute(held) if fence == fences[job_id]]
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


_MARK = {"key_id": "id", "key_fence": "int", "new_started_at": "time"}
_SNAPSHOT = {"key_id": "id", "key_fence": "int", "new_progress": "json"}


def _guarded_update(session: Session, assignment: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    dialect = _dialect(session)
    ids = sql.ids(dialect, [row["key_id"] for row in rows])
    if dialect == "postgresql" and len(rows) > 1:
        session.execute(_lock_sql(dialect), {"ids": ids})
    session.execute(
        sa.text(f"UPDATE job SET {assignment} FROM {sql.rows(dialect, columns)} WHERE {_right_claim(dialect)}"),
        {"rows": sql.encode_rows(dialect, rows), "ids": ids},
    )


def mark_started(session: Session, marks: Iterable[tuple[str, int, datetime]]) -> None:
    """Put on record that the code of these claims runs: from here on a death counts as a crash."""
    rows = [{"key_id": job_id, "key_fence": fence, "new_started_at": at} for job_id, fence, at in marks]
    _guarded_update(session, "started_at = new_started_at", _MARK, rows)


def snapshot(session: Session, progress: Iterable[tuple[str, int, dict[str, Any]]]) -> None:
    """Keep where these claims are, for those who look later."""
    rows = [{"key_id": job_id, "key_fence": fence, "new_progress": value} for job_id, fence, value in progress]
    _guarded_update(session, "progress = new_progress", _SNAPSHOT, rows)


def hold(session: Session, claim: Claim) -> None:
    """Lock the job's row for this transaction; every domain transaction of a job begins so.

    Raises Stale if the job is somebody else's by now, Cancelled if it was asked to stop: nothing is written then.
    """
    row = session.execute(
        sa.select(JobRow.fence, JobRow.state, JobRow.cancel_requested_at).where(JobRow.id == claim.id).with_for_update()
    ).one_or_none()
    if row is None or row.fence != claim.fence or row.state != "running":
        raise Stale(f"job {claim.id} is not at fence {claim.fence} any more")
    if row.cancel_requested_at is not None:
        raise Cancelled(f"job {claim.id} was asked to stop")


@lru_cache
def _free_sql(dialect: str) -> sa.TextualSelect:
    died = "started_at IS NOT NULL"
    # A worker that began a moment ago and is dead, though it never ran the job: something else kills here.
    others_die = f"""
        crashes < {MOST_CRASHES - 1} AND EXISTS (
            SELECT 1 FROM worker WHERE worker.state = 'dead' AND worker.started_at > :young
               AND worker.id <> job.worker_id AND worker.id NOT IN (
                SELECT attempt.worker_id FROM attempt WHERE attempt.job_id = job.id AND attempt.outcome = 'died'))"""
    poison = f"{died} AND crashes >= {CRASHES_BEFORE_ALONE} AND NOT ({others_die})"
    ended = f"cancel_requested_at IS NOT NULL OR ({poison})"
    columns = MOVED + ", kind"
    return _typed(
        f"""
        WITH moving AS MATERIALIZED (
            SELECT id FROM job WHERE state = 'running' AND worker_id = CAST(:worker AS {_id_type(dialect)})
            ORDER BY id LIMIT {FREE_BATCH}{_for_update(dialect)})
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
    """running → queued (or failed as poison, or cancelled) for up to FREE_BATCH jobs of a worker that is gone."""
    dialect, now = _dialect(session), clock.now()
    held = sa.select(JobRow.id).where(JobRow.state == "running", JobRow.worker_id == worker_id)
    child_counts.lock(session, held.where(JobRow.parent_id.is_not(None)).order_by(JobRow.id).limit(FREE_BATCH))
    parameters = {"worker": worker_id, "now": now, "young": now - YOUNG}
    parameters["reason"] = f"its worker died again, while it ran alone: {reason}"
    rows = session.execute(_free_sql(dialect), parameters).all()
    if not rows:
        return []
    written = sa.text(
        f"{_ATTEMPT} started_at, :now, 'died', 'WorkerDied', CAST(:reason AS text), NULL FROM job "
        f"WHERE id {sql.among(dialect)} ON CONFLICT DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    session.execute(written, {"ids": sql.ids(dialect, [row.id for row in rows]), "now": now, "reason": reason})
    moved = [Moved(*row[:-1]) for row in rows]
    child_counts.count(session, moved)
    call_on_end_of(session, moved, {row.id: row.kind for row in rows}, apart=True)
    return moved


def call_on_end_of(session: Session, moved: Iterable[Moved], kinds: dict[str, str], *, apart: bool = False) -> None:
    """And tell their webhooks. `apart`: one that fails is told in the log and keeps no other job from its move."""
    moved = list(moved)
    end_webhooks.tell_ends(session, moved)
    for move in moved:
        kind = definition(kinds[move.id])
        if move.state not in ENDED or kind is None or kind.on_end is None:
            continue
        row = session.get(JobRow, move.id, populate_existing=True)
        assert row is not None
        if not apart:
            kind.on_end(session, row)
            continue
        try:
            with session.begin_nested():
                kind.on_end(session, row)
        except OperationalError:
            raise
        except Exception:  # on_end is anybody's code
            log.exception("on_end_refused", job_id=move.id, kind=row.kind)
