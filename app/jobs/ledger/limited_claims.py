"""Claims of jobs under a limit, counted under the limit's lock so that no cap is ever exceeded."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.jobs.admission import limits
from app.jobs.admission.limits import Limit, Subject
from app.jobs.ledger import admissions, claims
from app.jobs.ledger.claims import Claim
from app.jobs.models import JobRow


def claim(session: Session, ids: Sequence[str], worker_id: str, *, alone: bool = False) -> list[Claim]:
    """Like `claims.claim`, but enforces pauses and caps; jobs over a limit leave the Redis window."""
    unlimited = claims.claim(session, ids, worker_id, alone=alone)
    if len(unlimited) == len(ids):
        return unlimited
    claimed_ids = {claimed.id for claimed in unlimited}
    limited = _claim_limited(session, [job_id for job_id in ids if job_id not in claimed_ids], worker_id, alone)
    if not limited:
        return unlimited
    place = {job_id: position for position, job_id in enumerate(ids)}
    return sorted(unlimited + limited, key=lambda claimed: place[claimed.id])


def _claim_limited(session: Session, ids: list[str], worker_id: str, alone: bool) -> list[Claim]:
    waiting = _waiting(session, ids)
    if not waiting:
        return []
    locked = limits.lock_narrow(session, {subject for applying in waiting.values() for subject in applying})
    narrow: dict[Subject, Limit] = {(limit.scope, limit.name): limit for limit in locked}
    # Counted in statements begun under the locks: claims that other workers made before them are in the count.
    room = {subject: _room(session, limit) for subject, limit in narrow.items()}
    passing: list[str] = []
    capped: set[str] = set()
    blocked: list[str] = []
    for job_id in ids:
        if job_id not in waiting:
            continue
        applying = [subject for subject in waiting[job_id] if subject in narrow]
        if any(room[subject] == 0 for subject in applying):
            blocked.append(job_id)
            continue
        passing.append(job_id)  # also a job whose limit was lifted a moment ago
        for subject in applying:
            capped.add(job_id)
            room[subject] -= 1
    if blocked:
        admissions.leave_window(session, blocked)
    claimed = claims.claim(session, passing, worker_id, alone=alone, ignore_limits=True) if passing else []
    return [job._replace(capped=job.id in capped) for job in claimed]


def _waiting(session: Session, ids: list[str]) -> dict[str, tuple[Subject, ...]]:
    columns = (JobRow.id, JobRow.queue, JobRow.kind, JobRow.tenant)
    rows = session.execute(sa.select(*columns).where(JobRow.id.in_(ids), JobRow.state == "queued"))
    return {job_id: limits.subjects(queue, kind, tenant) for job_id, queue, kind, tenant in rows}


def _room(session: Session, limit: Limit) -> int:
    if limit.paused or limit.cap is None:
        return 0
    return max(0, limit.cap - limits.count_running(session, limit.scope, limit.name))
