"""The reason for a job's state and the fix, for every state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, schema
from app.core.settings import get_settings
from app.jobs.definition import definition
from app.jobs.inspect.explain_queued import explain_queued, no_writes
from app.jobs.inspect.reason import Reason, Services, span
from app.jobs.ledger import views
from app.jobs.ledger.workers import ALIVE
from app.jobs.models import JobRow, WorkerRow
from app.jobs.states import ENDED

# A relay checks twice a second; a job that is due for longer has no relay.
MAX_DUE_S = 5.0
MAX_SHOWN_CHILDREN = 5
_RETRY = "Fix the cause, then run `millrace jobs retry {id}`, or discard the job."
# Fixes by error code; other codes get the sentence above.
_FIXES = {
    "payload": "The payload does not fit its kind: start a new job with a valid payload.",
    "payload_version": "A newer version wrote this payload: update the workers, then retry.",
    "payload_size": "Store large data in documents or blobs and pass their ids.",
    "result": "The job's function must return a JSON object, or nothing.",
    "result_size": "Store large results in documents or blobs and return their ids.",
    "expired": "Start it again with a later expires_at, or retry it, which removes expires_at.",
    "poison": "It crashed its worker several times, last while it ran alone: read the workers' logs before a retry.",
    "time_limit": "Make the job faster or raise time_limit_s of its kind, then retry.",
    "loop_blocked": "Await the slow call, pass it to asyncio.to_thread, or write the job as a plain def; then retry.",
    "lane_out_of_memory": "Raise memory_mb of its kind or MILLRACE_SANDBOX_MEMORY_MB, then retry.",
    "lane_crashed": "The code crashed its child process: read the attempts and the worker's log, then retry.",
    "not_found": "The object that the job needs does not exist: discard the job.",
    "blob_not_found": (
        "The worker does not find the original: give api and workers one store (MILLRACE_BLOB_URL; `millrace doctor` "
        "checks it), then retry."
    ),
    "quota_open_jobs": "The tenant had too many open jobs at every try: retry the job when they have ended.",
    "quota_documents": "The tenant has reached max_documents: delete documents or raise the quota, then retry.",
    "quota_bytes": "The tenant has reached max_bytes: delete documents or raise the quota, then retry.",
    "unexpected": "This is a bug: the attempts hold its traceback. Fix the code, then retry.",
    "unavailable": "A service that the job needs was down at every try: retry the job when the service is back.",
    "limit_reached": "A service that the job needs refused more requests at every try: retry the job later.",
}


def explain(session: Session, tenant: str, job_id: str, services: Services) -> dict[str, Any]:
    """Return the explanation in the shape of the API. Raises NotFound."""
    row = views.get(session, tenant, job_id)
    reason = _schema_incomplete(session, row) or reason_of(session, row, services)
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


def _schema_incomplete(session: Session, row: JobRow) -> Reason | None:
    """Return the reason for an open job whose tables are not whole. Reads the catalogue of the database."""
    fault = None if row.state in ENDED else schema.fault(session)
    if fault is None:
        return None
    message = f"The {'end' if row.state == 'running' else 'next step'} of this job cannot be written: {fault}."
    fix = "Correct the schema, as `millrace doctor` says; the job then goes on, and nothing of it is lost."
    return Reason("schema_incomplete", message, fix)


def reason_of(session: Session, row: JobRow, services: Services) -> Reason:
    """Return the first obstacle, or the state of affairs."""
    blocked = None if row.state in ENDED else no_writes(services)
    if blocked is not None:
        return blocked
    return _BY_STATE[row.state](session, row, services)


def _scheduled(session: Session, row: JobRow, services: Services) -> Reason:
    overdue = _not_made_due(row, services)
    if overdue is not None:
        return overdue
    left = span((row.due_at - clock.now()).total_seconds())
    message = f"The job is scheduled for {clock.moment(row.due_at)}, {left} from now."
    return Reason("due_later", message, f"To start it now, run `millrace jobs run-now {row.id}`.", row.created_at)


def _retrying(session: Session, row: JobRow, services: Services) -> Reason:
    overdue = _not_made_due(row, services)
    if overdue is not None:
        return overdue
    left = span((row.due_at - clock.now()).total_seconds())
    facts = {"error_code": row.error_code, "tries": row.tries, "max_tries": row.max_tries}
    fix = f"The next try starts automatically; to start it now, run `millrace jobs run-now {row.id}`."
    kind = definition(row.kind)
    if row.error_type is None and kind is not None and kind.start_rate is not None:
        rate = kind.start_rate
        message = f"Jobs like it start at most {rate.calls:g} times in {span(rate.per_s)}; this one starts in {left}."
        return Reason("start_rate", message, "Wait, or raise start_rate of its kind.", facts=facts)
    if row.error_type is None:
        return Reason(
            "snoozed", f"The job asked to continue in {left}; that does not count as a try.", fix, facts=facts
        )
    message = (
        f"Try {row.tries} of {row.max_tries} failed ({row.error_type}: {_first_line(row)}); the next is in {left}."
    )
    code = "dependency_down" if row.error_code in ("unavailable", "limit_reached") else "retry_later"
    return Reason(code, message, fix, facts=facts)


def _not_made_due(row: JobRow, services: Services) -> Reason | None:
    late_s = (clock.now() - row.due_at).total_seconds()
    if late_s < 0:
        return None
    if services.redis_fault is None and services.relay and late_s < MAX_DUE_S:
        return Reason("due_now", "The job is due; a relay is about to queue it.", "Nothing to do.", row.due_at)
    message = f"The job has been due for {span(late_s)}, and no relay has queued it."
    return Reason("no_relay", message, "Start a relay: `millrace relay`.", row.due_at)


def _running(session: Session, row: JobRow, services: Services) -> Reason:
    worker = session.get(WorkerRow, row.worker_id) if row.worker_id else None
    where = f"worker {row.worker_id}"
    facts: dict[str, Any] = {"worker_id": row.worker_id, "attempt": row.tries + 1}
    if worker is None or worker.state not in ALIVE:
        fix = "Nothing to do: a relay queues it again."
        if not services.relay:
            fix = "Start a relay, which queues it again: `millrace relay`."
        return Reason("worker_gone", f"Its {where} has exited.", fix, facts=facts)
    where = f"worker {worker.id} ({worker.host.split('|')[0]}, pid {worker.pid})"
    silent_s = 0.0 if worker.beat_at is None else (clock.now() - worker.beat_at).total_seconds()
    patience_s = get_settings().worker_dead_s
    if silent_s > patience_s:
        message = f"Its {where} has sent no heartbeat for {span(silent_s)}."
        fix = "A relay frees the job automatically; check that host if it was suspended."
        if not services.relay:
            fix = "Start a relay, which frees the job: `millrace relay`."
        return Reason("worker_silent", message, fix, worker.beat_at, facts)
    if row.cancel_requested_at is not None:
        message = f"A cancel was requested, and {where} is stopping the job."
        return Reason("stopping", message, "Nothing to do.", row.cancel_requested_at, facts)
    if row.started_at is None:
        message = f"{where[0].upper()}{where[1:]} has claimed the job; it waits there for a free thread."
        return Reason("claimed", message, "Nothing to do: after a second another worker gets it.", row.claimed_at)
    return _explain_running(row, where, facts)


def _explain_running(row: JobRow, where: str, facts: dict[str, Any]) -> Reason:
    assert row.started_at is not None
    kind, running_s = definition(row.kind), (clock.now() - row.started_at).total_seconds()
    if kind is not None and running_s > kind.time_limit_s:
        message = (
            f"The job has run for {span(running_s)}, beyond its limit of {span(kind.time_limit_s)}, and is being "
            "stopped."
        )
        return Reason(
            "over_time", message, "Raise time_limit_s of its kind if it needs more time.", row.started_at, facts
        )
    progress = row.progress or {}
    blocked = progress.get("blocked")
    if blocked:
        message = f"The job blocks the event loop of its {where} at {blocked['line']}; other jobs there stand still."
        at = clock.parse_moment(blocked["at"])
        return Reason("blocks_loop", message, _FIXES["loop_blocked"], at, facts | {"line": blocked["line"]})
    stage = f", in stage {progress['stage']}" if progress.get("stage") else ""
    percent = f", {progress['percent']:.0f} %" if progress.get("percent") else ""
    message = f"The job runs on {where}{stage}{percent}."
    fix = f"Nothing to do; watch it with `millrace jobs follow {row.id}`."
    return Reason("running", message, fix, row.started_at, facts)


def _waiting(session: Session, row: JobRow, services: Services) -> Reason:
    unfinished = sa.select(JobRow.id, JobRow.state).where(JobRow.parent_id == row.id, JobRow.state.not_in(ENDED))
    children = session.execute(unfinished.order_by(JobRow.id).limit(MAX_SHOWN_CHILDREN)).all()
    facts = {"open_children": row.open_children, "children": [{"id": c.id, "state": c.state} for c in children]}
    if not children:
        message = "Its children have ended; a relay is about to move it on."
        fix = "Nothing to do." if services.relay else "Start a relay: `millrace relay`."
        return Reason("children_ended", message, fix, facts=facts)
    if row.cut_children:
        message = f"Its rule ({row.family_rule}) has decided; {row.open_children} open children are being cancelled."
        return Reason("children_stopping", message, "Nothing to do: it continues when they have ended.", facts=facts)
    message = (
        f"The job waits for {row.open_children} of its {row.children} children; the first of them is "
        f"{children[0].state}."
    )
    fix = (
        f"To see why the first one waits, run `millrace jobs explain {children[0].id}`. A cancel also cancels the "
        "children."
    )
    return Reason("waits_for_children", message, fix, facts=facts)


def _succeeded(session: Session, row: JobRow, services: Services) -> Reason:
    return Reason("done", "The job has succeeded.", "Nothing to do.", row.finished_at)


def _failed(session: Session, row: JobRow, services: Services) -> Reason:
    facts: dict[str, Any] = {"error_type": row.error_type, "error_code": row.error_code}
    facts |= {"fingerprint": row.fingerprint}
    facts |= {"tries": row.tries, "max_tries": row.max_tries}
    if row.discarded_at is not None:
        message = f"The job failed ({_first_line(row)}) and was discarded."
        return Reason("discarded", message, f"To run it again, run `millrace jobs retry {row.id}`.", row.discarded_at)
    code, has_used_all_tries = row.error_code or "failed", row.tries >= row.max_tries
    if code == "children_failed":
        return _failed_by_children(session, row, facts)
    if code in ("expired", "poison"):
        message = f"{_first_line(row)[:1].upper()}{_first_line(row)[1:]}."
    elif has_used_all_tries and row.max_tries > 1:
        message = f"All {row.max_tries} tries failed, the last with {row.error_type}: {_first_line(row)}"
    else:
        message = f"Another try would end the same way; {row.error_type}: {_first_line(row)}"
    fix = _FIXES.get(code, _RETRY.format(id=row.id))
    return Reason(code if code in ("expired", "poison") else "failed", message, fix, row.finished_at, facts)


def _failed_by_children(session: Session, row: JobRow, facts: dict[str, Any]) -> Reason:
    failed = sa.select(JobRow.id).where(JobRow.parent_id == row.id, JobRow.state.in_(("failed", "cancelled")))
    first = session.scalar(failed.order_by(JobRow.finished_at, JobRow.id).limit(1))
    fix = f"Fix the cause, then run `millrace jobs retry {row.id}`, which restarts the children that did not succeed."
    if first is not None:
        fix = f"To see why the first one failed, run `millrace jobs explain {first}`. {fix}"
    return Reason("children_failed", f"{_first_line(row)}.", fix, row.finished_at, facts | {"first_failed": first})


def _cancelled(session: Session, row: JobRow, services: Services) -> Reason:
    fix = f"To run it again, run `millrace jobs retry {row.id}`."
    parent = None if row.parent_id is None else session.get(JobRow, row.parent_id)
    if parent is not None and parent.state in ("cancelled", "failed"):
        message = f"Its parent {parent.id} {'has failed' if parent.state == 'failed' else 'was cancelled'}."
        return Reason("cancelled_with_parent", message, fix, row.finished_at, {"parent_id": parent.id})
    requested_at: datetime | None = row.cancel_requested_at
    return Reason("cancelled", "The job was cancelled on request.", fix, requested_at or row.finished_at)


def _first_line(row: JobRow) -> str:
    """Return the first line of the error message."""
    return (row.error_message or "").strip().partition("\n")[0][:300]


_BY_STATE: dict[str, Callable[[Session, JobRow, Services], Reason]] = {
    "scheduled": _scheduled,
    "queued": explain_queued,
    "running": _running,
    "waiting": _waiting,
    "retrying": _retrying,
    "succeeded": _succeeded,
    "failed": _failed,
    "cancelled": _cancelled,
}
