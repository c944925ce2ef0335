"""Why a job is where it is: one reason and the fix, for every state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.settings import get_settings
from app.jobs.definition import definition
from app.jobs.inspect.explain_queued import explain_queued
from app.jobs.inspect.reason import Around, Reason, span
from app.jobs.ledger import views
from app.jobs.ledger.workers import ALIVE
from app.jobs.models import JobRow, WorkerRow
from app.jobs.states import ENDED

# A relay looks twice a second; what is due for longer has none.
DUE_FOR_S = 5.0
SHOWN_CHILDREN = 5
_RETRY = "Mend the cause, then `millrace jobs retry {id}`, or discard it."
# What to do about a failure, by the code of its error; other codes get the sentence above.
_FIXES = {
    "payload": "The payload does not fit its kind: start a new job with a right one.",
    "payload_version": "A newer program wrote this payload: bring the workers up to date, then retry.",
    "payload_size": "Keep bodies in documents or blobs and pass their ids.",
    "result": "The job's function must return a dictionary that is JSON, or nothing.",
    "result_size": "Keep large results in documents or blobs and return their ids.",
    "expired": "Start it again with a later expires_at, or retry it, which takes expires_at away.",
    "poison": "It killed its worker several times, last while it ran alone: see the workers' logs before a retry.",
    "time_limit": "Make it faster or raise time_limit_s of its kind, then retry.",
    "lane_out_of_memory": "Raise memory_mb of its kind or MILLRACE_LANE_MEMORY_MB, then retry.",
    "lane_crashed": "The code crashed its child process: see the attempts and the worker's log, then retry.",
    "not_found": "What it was about does not exist (any more): discard it.",
    "quota_open_jobs": "Its tenant had too many open jobs through all its tries: retry it when they have ended.",
    "quota_documents": "Its tenant has as many documents as it may: delete some or raise max_documents, then retry.",
    "quota_bytes": "Its tenant stores as much as it may: delete documents or raise max_bytes, then retry.",
    "unexpected": "A bug: its traceback is in the attempts. Mend the code, then retry.",
    "unavailable": "A service it needs was down through all its tries: retry it when that is back.",
    "limit_reached": "A service it needs refused more requests through all its tries: retry it later.",
}


def explain(session: Session, tenant: str, job_id: str, around: Around) -> dict[str, Any]:
    """The shape of the API. Raises NotFound."""
    row = views.get(session, tenant, job_id)
    reason = reason_of(session, row, around)
    since = reason.since
    return {
        "job_id": row.id,
        "kind": row.kind,
        "state": row.state,
        "reason": reason.code,
        "message": reason.message,
        "fix": reason.fix,
        "since": clock.moment(since),
        "since_s": None if since is None else round(max(0.0, (clock.now() - since).total_seconds()), 3),
        "facts": reason.facts,
    }


def reason_of(session: Session, row: JobRow, around: Around) -> Reason:
    """The one reason; what stands in the way first is named alone."""
    return _BY_STATE[row.state](session, row, around)


def _scheduled(session: Session, row: JobRow, around: Around) -> Reason:
    overdue = _not_made_due(row, around)
    if overdue is not None:
        return overdue
    left = span((row.due_at - clock.now()).total_seconds())
    message = f"It was asked for {clock.moment(row.due_at)}, {left} from now."
    return Reason("due_later", message, f"To start it now: `millrace jobs run-now {row.id}`.", row.created_at)


def _retrying(session: Session, row: JobRow, around: Around) -> Reason:
    overdue = _not_made_due(row, around)
    if overdue is not None:
        return overdue
    left = span((row.due_at - clock.now()).total_seconds())
    facts = {"error_code": row.error_code, "tries": row.tries, "max_tries": row.max_tries}
    fix = f"It tries again by itself; to do it now: `millrace jobs run-now {row.id}`."
    kind = definition(row.kind)
    if row.error_type is None and kind is not None and kind.start_rate is not None:
        rate = kind.start_rate
        message = f"Jobs like it start at most {rate.calls:g} times in {span(rate.per_s)}; its turn is in {left}."
        return Reason("start_rate", message, "Wait, or raise start_rate of its kind.", facts=facts)
    if row.error_type is None:
        return Reason("snoozed", f"It asked to go on later, {left} from now; that counts as no try.", fix, facts=facts)
    message = f"Try {row.tries} of {row.max_tries} failed ({row.error_type}: {_line(row)}); the next is in {left}."
    code = "dependency_down" if row.error_code in ("unavailable", "limit_reached") else "retry_later"
    return Reason(code, message, fix, facts=facts)


def _not_made_due(row: JobRow, around: Around) -> Reason | None:
    late_s = (clock.now() - row.due_at).total_seconds()
    if late_s < 0:
        return None
    if around.redis and around.relay and late_s < DUE_FOR_S:
        return Reason("due_now", "It is due; a relay queues it any moment.", "Nothing to do.", row.due_at)
    message = f"It has been due for {span(late_s)}, and no relay has queued it."
    return Reason("no_relay", message, "Start a relay: `millrace relay`.", row.due_at)


def _running(session: Session, row: JobRow, around: Around) -> Reason:
    worker = session.get(WorkerRow, row.worker_id) if row.worker_id else None
    where = f"worker {row.worker_id}"
    facts: dict[str, Any] = {"worker_id": row.worker_id, "attempt": row.tries + 1}
    if worker is None or worker.state not in ALIVE:
        fix = "Nothing to do: a relay queues it again."
        if not around.relay:
            fix = "Start a relay, which queues it again: `millrace relay`."
        return Reason("worker_gone", f"Its {where} has ended.", fix, facts=facts)
    where = f"worker {worker.id} ({worker.host.split('|')[0]}, pid {worker.pid})"
    silent_s = 0.0 if worker.beat_at is None else (clock.now() - worker.beat_at).total_seconds()
    patience_s = get_settings().worker_dead_s
    if silent_s > patience_s:
        message = f"Its {where} has given no sign of life for {span(silent_s)}."
        fix = "A relay frees the job by itself; see to that host if it was frozen."
        if not around.relay:
            fix = "Start a relay, which frees the job: `millrace relay`."
        return Reason("worker_silent", message, fix, worker.beat_at, facts)
    if row.cancel_requested_at is not None:
        message = f"It was asked to stop, and {where} is stopping it."
        return Reason("stopping", message, "Nothing to do.", row.cancel_requested_at, facts)
    if row.started_at is None:
        message = f"{where[0].upper()}{where[1:]} has claimed it; it waits there for a free thread."
        return Reason("claimed", message, "Nothing to do: after a second it goes to another worker.", row.claimed_at)
    return _at_work(row, where, facts)


def _at_work(row: JobRow, where: str, facts: dict[str, Any]) -> Reason:
    assert row.started_at is not None
    kind, so_long_s = definition(row.kind), (clock.now() - row.started_at).total_seconds()
    if kind is not None and so_long_s > kind.time_limit_s:
        message = f"It runs for {span(so_long_s)}, beyond its limit of {span(kind.time_limit_s)}, and is being stopped."
        return Reason("over_time", message, "Raise time_limit_s of its kind if it needs longer.", row.started_at, facts)
    progress = row.progress or {}
    stage = f", in stage {progress['stage']}" if progress.get("stage") else ""
    percent = f", {progress['percent']:.0f} %" if progress.get("percent") else ""
    message = f"It runs on {where}{stage}{percent}."
    fix = f"Nothing to do; watch it with `millrace jobs follow {row.id}`."
    return Reason("running", message, fix, row.started_at, facts)


def _waiting(session: Session, row: JobRow, around: Around) -> Reason:
    unfinished = sa.select(JobRow.id, JobRow.state).where(JobRow.parent_id == row.id, JobRow.state.not_in(ENDED))
    some = session.execute(unfinished.order_by(JobRow.id).limit(SHOWN_CHILDREN)).all()
    facts = {"open_children": row.open_children, "children": [{"id": c.id, "state": c.state} for c in some]}
    if not some:
        message = "Its children have ended; what follows from them is being settled."
        fix = "Nothing to do." if around.relay else "Start a relay: `millrace relay`."
        return Reason("children_ended", message, fix, facts=facts)
    if row.cut_children:
        message = f"Its rule ({row.family_rule}) has decided; {row.open_children} children that are left are stopped."
        return Reason("children_stopping", message, "Nothing to do: it goes on when they have.", facts=facts)
    message = f"It waits for {row.open_children} of its {row.children} children, the first of them {some[0].state}."
    fix = f"See why that one is where it is: `millrace jobs explain {some[0].id}`; a cancel takes the children along."
    return Reason("waits_for_children", message, fix, facts=facts)


def _succeeded(session: Session, row: JobRow, around: Around) -> Reason:
    return Reason("done", "It has succeeded.", "Nothing to do.", row.finished_at)


def _failed(session: Session, row: JobRow, around: Around) -> Reason:
    facts: dict[str, Any] = {"error_type": row.error_type, "error_code": row.error_code}
    facts |= {"fingerprint": row.fingerprint}
    facts |= {"tries": row.tries, "max_tries": row.max_tries}
    if row.discarded_at is not None:
        message = f"It failed ({_line(row)}) and was discarded."
        return Reason(
            "discarded", message, f"To run it all the same: `millrace jobs retry {row.id}`.", row.discarded_at
        )
    code, given_up = row.error_code or "failed", row.tries >= row.max_tries
    if code == "children_failed":
        return _failed_by_children(session, row, facts)
    if code in ("expired", "poison"):
        how = f"{_line(row)[:1].upper()}{_line(row)[1:]}."
    elif given_up and row.max_tries > 1:
        how = f"All {row.max_tries} tries failed, the last with {row.error_type}: {_line(row)}"
    else:
        how = f"Another try would end the same way; {row.error_type}: {_line(row)}"
    fix = _FIXES.get(code, _RETRY.format(id=row.id))
    return Reason(code if code in ("expired", "poison") else "failed", how, fix, row.finished_at, facts)


def _failed_by_children(session: Session, row: JobRow, facts: dict[str, Any]) -> Reason:
    worst = sa.select(JobRow.id).where(JobRow.parent_id == row.id, JobRow.state.in_(("failed", "cancelled")))
    first = session.scalar(worst.order_by(JobRow.finished_at, JobRow.id).limit(1))
    fix = f"Mend the cause, then `millrace jobs retry {row.id}`: it starts those again that did not succeed."
    if first is not None:
        fix = f"See what the first of them failed of: `millrace jobs explain {first}`. {fix}"
    return Reason("children_failed", f"{_line(row)}.", fix, row.finished_at, facts | {"first_failed": first})


def _cancelled(session: Session, row: JobRow, around: Around) -> Reason:
    fix = f"To run it all the same: `millrace jobs retry {row.id}`."
    parent = None if row.parent_id is None else session.get(JobRow, row.parent_id)
    if parent is not None and parent.state in ("cancelled", "failed"):
        message = f"Its parent {parent.id} has {'failed' if parent.state == 'failed' else 'been cancelled'}."
        return Reason("cancelled_with_parent", message, fix, row.finished_at, {"parent_id": parent.id})
    asked: datetime | None = row.cancel_requested_at
    return Reason("cancelled", "It was asked to stop, and has.", fix, asked or row.finished_at)


def _line(row: JobRow) -> str:
    """The error in a line."""
    return (row.error_message or "").strip().partition("\n")[0][:300]


_BY_STATE: dict[str, Callable[[Session, JobRow, Around], Reason]] = {
    "scheduled": _scheduled,
    "queued": explain_queued,
    "running": _running,
    "waiting": _waiting,
    "retrying": _retrying,
    "succeeded": _succeeded,
    "failed": _failed,
    "cancelled": _cancelled,
}
