"""Dead letters: failed jobs that were neither retried nor discarded, in groups by fault."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.jobs.ledger.views import NAMELESS
from app.jobs.models import JobRow

# A literal: PostgreSQL would see two different parameters in SELECT and GROUP BY.
_FINGERPRINT = sa.func.coalesce(JobRow.fingerprint, sa.literal_column(f"'{NAMELESS}'"))
DEAD = sa.and_(JobRow.state == "failed", JobRow.discarded_at.is_(None))


def list_groups(
    session: Session,
    tenant: str,
    *,
    limit: int,
    kind: str | None = None,
    queue: str | None = None,
    after: tuple[datetime, str] | None = None,
) -> list[dict[str, Any]]:
    """Return a dictionary for each fingerprint, latest first; `after` is (last_seen, fingerprint) of the last page."""
    first, last = sa.func.min(JobRow.finished_at), sa.func.max(JobRow.finished_at)
    fingerprint = _FINGERPRINT.label("fingerprint")
    query = (
        sa.select(fingerprint, sa.func.count(), first, last, sa.func.max(sa.cast(JobRow.id, sa.Text)))
        .where(DEAD, JobRow.tenant == tenant)
        .group_by(fingerprint)
        .order_by(last.desc(), fingerprint)
        .limit(limit)
    )
    if kind is not None:
        query = query.where(JobRow.kind == kind)
    if queue is not None:
        query = query.where(JobRow.queue == queue)
    if after is not None:
        query = query.having(sa.or_(last < after[0], sa.and_(last == after[0], fingerprint > after[1])))
    groups = session.execute(query).all()
    examples = sa.select(JobRow).where(JobRow.id.in_([group[4] for group in groups]))
    latest = {row.id: row for row in session.scalars(examples)}
    kinds = _kinds_by_fingerprint(session, tenant, [group[0] for group in groups])
    return [
        {
            "fingerprint": name,
            "count": count,
            "first_seen": moment(since),
            "last_seen": moment(until),
            "kinds": kinds.get(name, []),
            "error": _error(latest[example]),
            "latest_job_id": example,
        }
        for name, count, since, until, example in groups
    ]


def _kinds_by_fingerprint(session: Session, tenant: str, fingerprints: list[str]) -> dict[str, list[str]]:
    query = sa.select(_FINGERPRINT, JobRow.kind).where(DEAD, JobRow.tenant == tenant, _FINGERPRINT.in_(fingerprints))
    kinds: dict[str, list[str]] = {}
    for name, kind in session.execute(query.distinct().order_by(JobRow.kind)):
        kinds.setdefault(name, []).append(kind)
    return kinds


def _error(row: JobRow) -> dict[str, Any]:
    return {"type": row.error_type, "code": row.error_code, "message": row.error_message}
