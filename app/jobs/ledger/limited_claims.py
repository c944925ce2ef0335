"""The claim of jobs before a gate: counted under the gate's lock, so that no cap is ever passed."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import sql
from app.jobs.admission import limits
from app.jobs.admission.limits import Gate, Subject
from app.jobs.ledger import claims as ledger
from app.jobs.ledger.claims import Claim
from app.jobs.models import JobRow


def claim(session: Session, ids: Sequence[str], worker_id: str, *, alone: bool = False) -> list[Claim]:
    """As `ledger.claim`, and of what stands before a gate as many as it lets through; the rest leaves the window."""
    claims = ledger.claim(session, ids, worker_id, alone=alone)
    if len(claims) == len(ids):
        return claims
    taken = {claimed.id for claimed in claims}
    more = _claim_gated(session, [job_id for job_id in ids if job_id not in taken], worker_id, alone)
    if not more:
        return claims
    place = {job_id: position for position, job_id in enumerate(ids)}
    return sorted(claims + more, key=lambda claimed: place[claimed.id])


def _claim_gated(session: Session, ids: list[str], worker_id: str, alone: bool) -> list[Claim]:
    waiting = _waiting(session, ids)
    if not waiting:
        return []
    found = limits.locked(session, {subject for before in waiting.values() for subject in before})
    shut: dict[Subject, Gate] = {(gate.scope, gate.name): gate for gate in found}
    # A statement of its own, begun under the locks: what others claimed before them is in the count.
    room = {subject: _room(session, gate) for subject, gate in shut.items()}
    passing: list[str] = []
    capped: set[str] = set()
    held: list[str] = []
    for job_id in ids:
        if job_id not in waiting:
            continue
        before = [subject for subject in waiting[job_id] if subject in shut]
        if any(room[subject] == 0 for subject in before):
            held.append(job_id)
            continue
        passing.append(job_id)  # also what stands before no gate any more: one was opened a moment ago
        for subject in before:
            capped.add(job_id)
            room[subject] -= 1
    if held:
        _leave_window(session, held)
    claims = ledger.claim(session, passing, worker_id, alone=alone, past_gates=True) if passing else []
    return [claimed._replace(capped=claimed.id in capped) for claimed in claims]


def _waiting(session: Session, ids: list[str]) -> dict[str, tuple[Subject, ...]]:
    columns = (JobRow.id, JobRow.queue, JobRow.kind, JobRow.tenant)
    rows = session.execute(sa.select(*columns).where(JobRow.id.in_(ids), JobRow.state == "queued"))
    return {job_id: limits.subjects(queue, kind, tenant) for job_id, queue, kind, tenant in rows}


def _room(session: Session, gate: Gate) -> int:
    if gate.paused or gate.cap is None:
        return 0
    return max(0, gate.cap - limits.running(session, gate.scope, gate.name))


def _leave_window(session: Session, ids: list[str]) -> None:
    """The relay admits them again when their gate has room."""
    dialect = sql.dialect_of(session)
    lock = "" if dialect == "sqlite" else " FOR UPDATE"
    session.execute(
        sa.text(
            "UPDATE job SET admitted_at = NULL WHERE id IN "
            f"(SELECT id FROM job WHERE id {sql.among(dialect)} AND state = 'queued' ORDER BY id{lock})"
        ),
        {"ids": sql.ids(dialect, ids)},
    )
