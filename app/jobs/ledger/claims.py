"""Claims: a worker takes queued jobs, marks their start, saves their progress. Guarded by state and fence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.errors import Cancelled, Stale
from app.jobs.child_rules import AGAIN
from app.jobs.models import JobRow
from app.jobs.states import CRASHES_BEFORE_ALONE
from app.jobs.transition import typed


class Claim(NamedTuple):
    """A job that this process may run until its fence moves. The fields are in the order of _CLAIMED."""

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
    capped: bool = False  # its end makes room under a cap

    @property
    def continues(self) -> bool:
        """True if the job has waited for its children and goes on with their results."""
        return self.family_rule not in (None, AGAIN)

    @property
    def must_mark_start(self) -> bool:
        """True if an earlier claim ended uncounted.

        The start is then recorded before the job's code runs, so that a job that kills its process at once counts.
        """
        return self.fence > self.tries + 1


_CLAIMED = (
    "id, fence, tenant, kind, queue, payload, payload_version, tries, max_tries, crashes, due_at, claimed_at, "
    "document_id, request_id, progress, traceparent, parent_id, family_rule"
)


_UNLIMITED = "".join(
    f"""
               AND NOT EXISTS (SELECT 1 FROM gate WHERE scope = '{scope}' AND name = job.{scope} AND (
                   paused_at IS NOT NULL OR running_cap IS NOT NULL OR declared_cap IS NOT NULL))"""
    for scope in ("queue", "kind", "tenant")
)


@lru_cache
def _claim_sql(dialect: str, ignore_limits: bool) -> sa.TextualSelect:
    return typed(
        f"""
        UPDATE job SET state = 'running', fence = fence + 1, worker_id = {sql.id_cast(dialect, "worker")},
               claimed_at = :now, started_at = NULL
        WHERE id IN (
            SELECT id FROM job WHERE id {sql.among(dialect)} AND state = 'queued'
               AND (expires_at IS NULL OR expires_at > :now)
               AND CASE WHEN :alone THEN crashes >= {CRASHES_BEFORE_ALONE} ELSE crashes < {CRASHES_BEFORE_ALONE} END
               AND EXISTS (SELECT 1 FROM worker WHERE id = {sql.id_cast(dialect, "worker")} AND state = 'running')
               {"" if ignore_limits else _UNLIMITED}
            ORDER BY id{sql.for_update(dialect)})
        RETURNING {_CLAIMED}""",
        _CLAIMED,
        "now",
    )


def claim(
    session: Session, ids: Sequence[str], worker_id: str, *, alone: bool = False, ignore_limits: bool = False
) -> list[Claim]:
    """Move those of the jobs that are still queued to running; return their claims in the order of `ids`.

    A job that crashed twice is only claimed with `alone`, and `alone` claims no other. A job under a limit is only
    claimed with `ignore_limits`; `limited_claims` decides when.
    """
    dialect = sql.dialect_of(session)
    parameters = {"ids": sql.ids(dialect, ids), "worker": worker_id, "now": clock.now(), "alone": alone}
    rows = session.execute(_claim_sql(dialect, ignore_limits), parameters).all()
    place = {job_id: position for position, job_id in enumerate(ids)}
    claims = [Claim._make((*row, worker_id, False)) for row in rows]
    return sorted(claims, key=lambda claimed: place[claimed.id])


@lru_cache
def _claims_of_sql(dialect: str) -> sa.TextualSelect:
    return typed(
        f"SELECT {_CLAIMED} FROM job WHERE state = 'running' AND worker_id = {sql.id_cast(dialect, 'worker')} "
        "AND claimed_at < :before ORDER BY id",
        _CLAIMED,
        "before",
    )


def list_claims_of(session: Session, worker_id: str, *, claimed_before: datetime) -> list[Claim]:
    """Return the worker's claims that the ledger holds as running and that are older than that time."""
    parameters = {"worker": worker_id, "before": claimed_before}
    rows = session.execute(_claims_of_sql(sql.dialect_of(session)), parameters).all()
    return [Claim._make((*row, worker_id, False)) for row in rows]


_MARK = {"key_id": "id", "key_fence": "int", "new_started_at": "time"}
_SNAPSHOT = {"key_id": "id", "key_fence": "int", "new_progress": "json"}


def same_claim(dialect: str) -> str:
    """SQL that joins a row to its job at its fence; PostgreSQL also gets the ids, so that it uses the index."""
    return f"job.fence = key_fence AND job.state = 'running' AND {sql.joined_on_id(dialect)}"


@lru_cache
def lock_sql(dialect: str) -> sa.TextClause:
    """SQL that locks jobs in the order of their ids."""
    return sa.text(f"SELECT id FROM job WHERE id {sql.among(dialect)} ORDER BY id FOR UPDATE")


def _guarded_update(session: Session, assignment: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    dialect = sql.dialect_of(session)
    ids = sql.ids(dialect, [row["key_id"] for row in rows])
    if dialect == "postgresql" and len(rows) > 1:
        session.execute(lock_sql(dialect), {"ids": ids})
    session.execute(
        sa.text(f"UPDATE job SET {assignment} FROM {sql.rows(dialect, columns)} WHERE {same_claim(dialect)}"),
        {"rows": sql.encode_rows(dialect, rows), "ids": ids},
    )


def mark_started(session: Session, marks: Iterable[tuple[str, int, datetime]]) -> None:
    """Record that the code of these claims runs: from now on a death counts as a crash."""
    rows = [{"key_id": job_id, "key_fence": fence, "new_started_at": at} for job_id, fence, at in marks]
    _guarded_update(session, "started_at = new_started_at", _MARK, rows)


def snapshot(session: Session, progress: Iterable[tuple[str, int, dict[str, Any]]]) -> None:
    """Save the progress of these claims in their rows."""
    rows = [{"key_id": job_id, "key_fence": fence, "new_progress": value} for job_id, fence, value in progress]
    _guarded_update(session, "progress = new_progress", _SNAPSHOT, rows)


def hold(session: Session, claim: Claim) -> None:
    """Lock the job's row for this transaction. Every domain transaction of a job begins with this.

    Raises Stale if the claim is no longer valid, Cancelled if the job was asked to stop; nothing is written then.
    """
    row = session.execute(
        sa.select(JobRow.fence, JobRow.state, JobRow.cancel_requested_at).where(JobRow.id == claim.id).with_for_update()
    ).one_or_none()
    if row is None or row.fence != claim.fence or row.state != "running":
        raise Stale(f"job {claim.id} is not at fence {claim.fence} any more")
    if row.cancel_requested_at is not None:
        raise Cancelled(f"job {claim.id} was asked to stop")
