"""The reason a queued job does not run yet: the first obstacle, or the number of jobs ahead of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.settings import get_settings
from app.jobs.admission import limits
from app.jobs.inspect.reason import Reason, Services, span
from app.jobs.ledger.workers import ALIVE
from app.jobs.models import JobId, JobRow, WorkerRow
from app.jobs.states import CRASHES_BEFORE_ALONE

# A higher count costs time and tells a person nothing more.
MAX_COUNTED_JOBS = 1000


def explain_queued(session: Session, row: JobRow, services: Services) -> Reason:
    """Return the first obstacle of a queued job."""
    now, blocking, serving = clock.now(), limits.blocking(session, row), serving_workers(session, row.queue)
    return (
        _expired(row, now, services)
        or _unknown_kind(row, now)
        or _paused(blocking)
        or _no_worker(serving, row, now)
        or _no_redis(services)
        or _no_relay(row, services)
        or _at_limit(blocking, row)
        or _behind(session, serving, row)
    )


def _expired(row: JobRow, now: datetime, services: Services) -> Reason | None:
    if row.expires_at is None or row.expires_at > now:
        return None
    fix = "Start it again without expires_at, or with a later one."
    if not services.relay:
        fix += " No relay runs to end it: start one with `millrace relay`."
    return Reason("expired", "Its expires_at has passed; a relay is about to fail it.", fix, row.expires_at)


def _unknown_kind(row: JobRow, now: datetime) -> Reason | None:
    """A worker that does not know a kind moves the job's due_at some seconds ahead."""
    if row.due_at <= now:
        return None
    message = (
        f"A worker that fetched it does not know the kind {row.kind}; the next try is at {_time_of_day(row.due_at)}."
    )
    fix = "Start workers with the kind's module in MILLRACE_MODULES, or cancel the job."
    return Reason("kind_unknown", message, fix, facts={"kind": row.kind})


def _paused(blocking: Sequence[limits.BlockingLimit]) -> Reason | None:
    limit = next((block.limit for block in blocking if block.limit.paused), None)
    if limit is None:
        return None
    by = f" by {limit.paused_by}" if limit.paused_by else ""
    cause = f": {limit.reason}" if limit.reason else "."
    option = "" if limit.scope == "queue" else f" --{limit.scope}"
    fix = f"To resume it, run `millrace queues resume {limit.name}{option}`."
    message = f"{limit.scope.capitalize()} {limit.name} was paused{by}{cause}"
    return Reason("paused", message, fix, limit.paused_at, {"scope": limit.scope, "name": limit.name})


def _at_limit(blocking: Sequence[limits.BlockingLimit], row: JobRow) -> Reason | None:
    block = next((block for block in blocking if block.running is not None), None)
    if block is None:
        return None
    limit = block.limit
    message = (
        f"{limit.scope.capitalize()} {limit.name} has a limit of {limit.cap} running jobs, and {block.running} are "
        "running."
    )
    facts = {"scope": limit.scope, "name": limit.name, "cap": limit.cap, "running": block.running}
    fix = f"Wait, or raise the limit of the {limit.scope}."
    return Reason("capped", message, fix, row.created_at, facts)


def _no_worker(serving: Sequence[WorkerRow], row: JobRow, now: datetime) -> Reason | None:
    silent_s = 2 * get_settings().worker_dead_s
    live = [w for w in serving if w.beat_at is None or (now - w.beat_at).total_seconds() < silent_s]
    if any(worker.state == "running" for worker in live):
        return None
    facts = {"queue": row.queue, "workers": [{"id": w.id, "state": w.state} for w in serving]}
    if any(worker.state == "paused" for worker in live):
        message = f"Every worker of queue {row.queue} is paused."
        fix = "Resume a worker with `millrace workers resume ID`, or start another one."
        return Reason("workers_paused", message, fix, facts=facts)
    if live:
        message = f"Every worker of queue {row.queue} is draining and claims no more jobs."
    elif serving:
        message = f"The workers of queue {row.queue} have sent no heartbeat for {span(silent_s)} or longer."
    else:
        message = f"No worker serves queue {row.queue}."
    return Reason("no_worker", message, "Start a worker: `millrace worker`.", row.created_at, facts)


def serving_workers(session: Session, queue: str) -> list[WorkerRow]:
    """Return the queue's workers whose rows say that they live."""
    rows = session.scalars(sa.select(WorkerRow).where(WorkerRow.state.in_(ALIVE)).order_by(WorkerRow.id))
    return [row for row in rows if queue in row.queues]


def _no_redis(services: Services) -> Reason | None:
    if services.redis_fault is None:
        return None
    lost = "so workers get no jobs. No job is lost: the database holds them."
    if services.redis_fault.startswith("refuses"):
        message = f"Redis {services.redis_fault}; {lost}"
        fix = "Make Redis (MILLRACE_REDIS_URL) take writes: give it memory or disk, or name its primary."
        return Reason("redis_refuses", message, fix)
    fix = "Start Redis again (MILLRACE_REDIS_URL); the job then starts automatically."
    return Reason("redis_down", f"Redis does not answer, {lost}", fix)


def no_writes(services: Services) -> Reason | None:
    """Return the reason for a job that cannot move because the database takes no writes."""
    if services.sql_fault is None:
        return None
    message = f"The database {services.sql_fault}, so no job can begin or end."
    fix = "Free disk space or name a writable server (MILLRACE_DATABASE_URL); the job then goes on automatically."
    return Reason("database_refuses", message, fix)


def _no_relay(row: JobRow, services: Services) -> Reason | None:
    if services.relay or row.admitted_at is not None:
        return None
    message = "The job waits outside its queue's window, and no relay runs to admit it."
    return Reason("no_relay", message, "Start a relay: `millrace relay`.")


def _behind(session: Session, alive: Sequence[WorkerRow], row: JobRow) -> Reason:
    serving = [worker for worker in alive if worker.state == "running"]
    slots = sum(worker.threads for worker in serving)
    ids = [worker.id for worker in serving]
    running = JobRow.state == sa.literal_column("'running'")  # literal, like the condition of the index
    holding = sa.select(sa.func.count()).where(running, JobRow.worker_id.in_(ids))
    busy = session.scalar(holding) or 0
    before = count_jobs_ahead(session, row)
    ahead = f"{before} or more" if before >= MAX_COUNTED_JOBS else str(before)
    facts = {"queue": row.queue, "jobs_before": before, "slots": slots, "busy": busy}
    if row.crashes >= CRASHES_BEFORE_ALONE:
        message = f"Its process died {row.crashes} times, so the job waits until a worker has no other job."
        fix = "Read its attempts; cancel the job if it crashes workers."
        return Reason("runs_alone", message, fix, facts=facts | {"crashes": row.crashes})
    if busy >= slots:
        message = f"All {slots} slots of the queue's workers are busy; {ahead} jobs of the queue are ahead of it."
        return Reason("workers_busy", message, "Wait, or start more workers.", row.created_at, facts)
    if before:
        message = f"{ahead} jobs of queue {row.queue} are ahead of it; {busy} of {slots} slots are busy."
        fix = "Wait, start more workers, or give it a higher priority."
        return Reason("behind_others", message, fix, row.created_at, facts)
    return Reason("about_to_start", "The job is next; a worker is about to claim it.", "Nothing to do.", facts=facts)


# Three index ranges; the count ends with the first that has enough. The state is a literal, since a plan for any state
# cannot use an index of queued jobs. A text costs less than building the statement each time.
_QUEUED = "SELECT id FROM job WHERE state = 'queued' AND queue = :queue AND admitted_at"
_BEFORE = sa.text(
    f"""
    SELECT count(*) FROM (
        {_QUEUED} IS NULL AND priority > :priority
        UNION ALL {_QUEUED} IS NULL AND priority = :priority AND id < :id
        UNION ALL {_QUEUED} IS NOT NULL AND (priority > :priority OR (priority = :priority AND id < :id))
        LIMIT {MAX_COUNTED_JOBS}) AS before"""
).bindparams(sa.bindparam("id", type_=JobId))


def count_jobs_ahead(session: Session, row: JobRow) -> int:
    """Count the older or higher-priority queued jobs of its queue, up to MAX_COUNTED_JOBS."""
    return session.scalar(_BEFORE, {"queue": row.queue, "priority": row.priority, "id": row.id}) or 0


def _time_of_day(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC"
