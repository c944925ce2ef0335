"""Dead letters: failed jobs that nobody has retried or discarded, in groups of the same fault."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.jobs.ledger.views import NAMELESS
from app.jobs.models import JobRow

# Not a parameter: PostgreSQL would take it for two different ones in SELECT and GROUP BY.
_FINGERPRINT = sa.func.coalesce(JobRow.fingerprint, sa.literal_column(f"'{NAMELESS}'"))
DEAD = sa.and_(JobRow.state == "failed", JobRow.discarded_at.is_(None))


def groups(
    session: Session,
    tenant: str,
    *,
    limit: int,
    kind: str | None = None,
    queue: str | None = None,
    after: tuple[datetime, str] | None = None,
) -> list[dict[str, Any]]:
    """One dictionary a fingerprint, the latest seen first; `after` is (last_seen, fingerprint) of the page before."""
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
    found = session.execute(query).all()
    latest = {row.id: row for row in session.scalars(sa.select(JobRow).where(JobRow.id.in_([f[4] for f in found])))}
    kinds = _kinds(session, tenant, [f[0] for f in found])
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
        for name, count, since, until, example in found
    ]


def _kinds(session: Session, tenant: str, fingerprints: list[str]) -> dict[str, list[str]]:
    query = sa.select(_FINGERPRINT, JobRow.kind).where(DEAD, JobRow.tenant == tenant, _FINGERPRINT.in_(fingerprints))
    found: dict[str, list[str]] = {}
    for name, kind in session.execute(query.distinct().order_by(JobRow.kind)):
        found.setdefault(name, []).append(kind)
    return found


def _error(row: JobRow) -> dict[str, Any]:
    return {"type": row.error_type, "code": row.error_code, "message": row.error_message}
