"""Why a queued job does not run yet: the first obstacle on its way, or how many stand before it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.settings import get_settings
from app.jobs.admission import limits
from app.jobs.inspect.reason import Around, Reason, span
from app.jobs.ledger.workers import ALIVE
from app.jobs.models import JobId, JobRow, WorkerRow
from app.jobs.states import CRASHES_BEFORE_ALONE

# Counting further costs more than the difference tells.
MOST_COUNTED = 1000


def explain_queued(session: Session, row: JobRow, around: Around) -> Reason:
    now, held, serving = clock.now(), limits.blocking(session, row), serving_workers(session, row.queue)
    return (
        _expired(row, now, around)
        or _unknown_kind(row, now)
        or _paused(held)
        or _nobody_serves(serving, row, now)
        or _redis_away(around)
        or _no_relay(row, around)
        or _capped(held, row)
        or _behind(session, serving, row)
    )


def _expired(row: JobRow, now: datetime, around: Around) -> Reason | None:
    if row.expires_at is None or row.expires_at > now:
        return None
    fix = "Start it again without expires_at, or with a later one."
    if not around.relay:
        fix += " No relay runs that would end it: start one with `millrace relay`."
    return Reason("expired", "It may not be started any more; a relay is about to fail it.", fix, row.expires_at)


def _unknown_kind(row: JobRow, now: datetime) -> Reason | None:
    """A worker that does not know a kind sets the job aside for some seconds by its due_at."""
    if row.due_at <= now:
        return None
    message = f"A worker took it and does not know the kind {row.kind}; it is offered again at {_clock(row.due_at)}."
    fix = "Start workers with the module of that kind in MILLRACE_MODULES, or cancel the job."
    return Reason("kind_unknown", message, fix, facts={"kind": row.kind})


def _paused(held: Sequence[limits.BlockingLimit]) -> Reason | None:
    gate = next((hold.limit for hold in held if hold.limit.paused), None)
    if gate is None:
        return None
    by = f" by {gate.paused_by}" if gate.paused_by else ""
    why = f": {gate.reason}" if gate.reason else "."
    option = "" if gate.scope == "queue" else f" --{gate.scope}"
    fix = f"Resume it: `millrace queues resume {gate.name}{option}`."
    message = f"The {gate.scope} {gate.name} was paused{by}{why}"
    return Reason("paused", message, fix, gate.paused_at, {"scope": gate.scope, "name": gate.name})


def _capped(held: Sequence[limits.BlockingLimit], row: JobRow) -> Reason | None:
    hold = next((hold for hold in held if hold.running is not None), None)
    if hold is None:
        return None
    gate = hold.limit
    message = f"At most {gate.cap} jobs of the {gate.scope} {gate.name} may run at once, and {hold.running} do."
    facts = {"scope": gate.scope, "name": gate.name, "cap": gate.cap, "running": hold.running}
    fix = f"Wait, or raise the limit of that {gate.scope}."
    return Reason("capped", message, fix, row.created_at, facts)


def _nobody_serves(serving: Sequence[WorkerRow], row: JobRow, now: datetime) -> Reason | None:
    silent_s = 2 * get_settings().worker_dead_s
    heard = [w for w in serving if w.beat_at is None or (now - w.beat_at).total_seconds() < silent_s]
    if any(worker.state == "running" for worker in heard):
        return None
    facts = {"queue": row.queue, "workers": [{"id": w.id, "state": w.state} for w in serving]}
    if any(worker.state == "paused" for worker in heard):
        message = f"Every worker of the queue {row.queue} is paused."
        fix = "Resume one: `millrace workers resume ID`, or start another."
        return Reason("workers_paused", message, fix, facts=facts)
    if heard:
        message = f"Every worker of the queue {row.queue} is draining and takes nothing more."
    elif serving:
        message = f"The workers of the queue {row.queue} have given no sign of life for {span(silent_s)} or longer."
    else:
        message = f"No live worker serves the queue {row.queue}."
    return Reason("no_worker", message, "Start one: `millrace worker`.", row.created_at, facts)


def serving_workers(session: Session, queue: str) -> list[WorkerRow]:
    """Workers of the queue that have neither stopped nor died, as far as anybody knows."""
    rows = session.scalars(sa.select(WorkerRow).where(WorkerRow.state.in_(ALIVE)).order_by(WorkerRow.id))
    return [row for row in rows if queue in row.queues]


def _redis_away(around: Around) -> Reason | None:
    if around.redis:
        return None
    message = "Redis does not answer, and it is what carries jobs to workers. Nothing is lost: the row is the truth."
    return Reason("redis_down", message, "Bring Redis back (MILLRACE_REDIS_URL); the job then starts by itself.")


def _no_relay(row: JobRow, around: Around) -> Reason | None:
    if around.relay or row.admitted_at is not None:
        return None
    message = "It waits outside its queue's window, and no relay runs that would let it in."
    return Reason("no_relay", message, "Start a relay: `millrace relay`.")


def _behind(session: Session, alive: Sequence[WorkerRow], row: JobRow) -> Reason:
    serving = [worker for worker in alive if worker.state == "running"]
    slots = sum(worker.threads for worker in serving)
    ids = [worker.id for worker in serving]
    running = JobRow.state == sa.literal_column("'running'")  # as the index of running jobs has it
    holding = sa.select(sa.func.count()).where(running, JobRow.worker_id.in_(ids))
    busy = session.scalar(holding) or 0
    before = jobs_before(session, row)
    many = f"{before} or more" if before >= MOST_COUNTED else str(before)
    facts = {"queue": row.queue, "jobs_before": before, "slots": slots, "busy": busy}
    if row.crashes >= CRASHES_BEFORE_ALONE:
        message = f"Its process died {row.crashes} times, so it waits until a worker has nothing else to run."
        fix = "See its attempts; cancel it if it is what kills workers."
        return Reason("runs_alone", message, fix, facts=facts | {"crashes": row.crashes})
    if busy >= slots:
        message = f"All {slots} slots of the queue's workers are busy; {many} jobs of the queue stand before it."
        return Reason("workers_busy", message, "Wait, or start more workers.", row.created_at, facts)
    if before:
        message = f"{many} jobs of the queue {row.queue} stand before it; {busy} of {slots} slots are busy."
        fix = "Wait, start more workers, or give it a higher priority."
        return Reason("behind_others", message, fix, row.created_at, facts)
    return Reason("about_to_start", "It is next; a worker takes it any moment.", "Nothing to do.", facts=facts)


# Three ranges of indexes, and the first that has enough ends the count. The state is written out, since a plan made for
# any state cannot use an index of the queued ones; one text, since it costs less to send than to build.
_QUEUED = "SELECT id FROM job WHERE state = 'queued' AND queue = :queue AND admitted_at"
_BEFORE = sa.text(
    f"""
    SELECT count(*) FROM (
        {_QUEUED} IS NULL AND priority > :priority
        UNION ALL {_QUEUED} IS NULL AND priority = :priority AND id < :id
        UNION ALL {_QUEUED} IS NOT NULL AND (priority > :priority OR (priority = :priority AND id < :id))
        LIMIT {MOST_COUNTED}) AS before"""
).bindparams(sa.bindparam("id", type_=JobId))


def jobs_before(session: Session, row: JobRow) -> int:
    """How many queued jobs of its queue are older or of higher priority, counted no further than MOST_COUNTED."""
    return session.scalar(_BEFORE, {"queue": row.queue, "priority": row.priority, "id": row.id}) or 0


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC"
