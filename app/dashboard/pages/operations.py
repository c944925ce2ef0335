"""Failures in groups, queues, workers and schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from cron_descriptor import CasingTypeEnum, ExpressionDescriptor, Options
from cron_descriptor.Exception import FormatException, MissingFieldException, WrongArgumentException
from fastapi import Form, Request, Response
from sqlalchemy.orm import Session

from app.access.kinds import require_schedule_access
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotFound
from app.core.sql import storable
from app.dashboard.frame import page
from app.dashboard.listing import PAGE_ROWS, address, before_number, before_uuid, cut
from app.dashboard.routing import router as make_router
from app.dashboard.routing import see_other
from app.dashboard.visitor import Operator, Reader, Visitor, Writer
from app.jobs.inspect import dead_letters, queue_stats
from app.jobs.ledger import limit_commands, workers
from app.jobs.ledger.workers import Order
from app.jobs.queues import QUEUES
from app.jobs.schedules import store

router = make_router()

Reason = Annotated[str, Form(max_length=200)]
_CRON_FAULTS = (FormatException, MissingFieldException, WrongArgumentException)
_CRON_WORDS = {
    "@hourly": "every hour",
    "@daily": "every day at 00:00",
    "@midnight": "every day at 00:00",
    "@weekly": "every Sunday at 00:00",
    "@monthly": "on the first of each month at 00:00",
    "@yearly": "on 1 January at 00:00",
    "@annually": "on 1 January at 00:00",
}


@router.get("/failures")
async def show_failures(request: Request, visitor: Reader) -> Response:
    rows = await read(_groups, visitor.tenant, _group_position(request))
    shown = rows[:PAGE_ROWS]
    older = None
    if len(rows) > PAGE_ROWS:
        older = address(request, before=f"{shown[-1]['last_seen']},{shown[-1]['fingerprint']}")
    return page(request, "failures.html", visitor=visitor, groups=shown, older=older)


def _groups(session: Session, tenant: str, after: tuple[datetime, str] | None) -> list[dict[str, Any]]:
    return dead_letters.list_groups(session, tenant, limit=PAGE_ROWS + 1, after=after)


def _group_position(request: Request) -> tuple[datetime, str] | None:
    text = request.query_params.get("before")
    if text is None:
        return None
    moment, _, fingerprint = text.partition(",")
    try:
        return datetime.fromisoformat(moment), fingerprint
    except ValueError as error:
        raise InvalidInput("before must be the position of the last group of the page before", code="cursor") from error


@router.get("/queues")
async def show_queues(request: Request, visitor: Operator) -> Response:
    return page(request, "queues.html", visitor=visitor, queues=await read(queue_stats.read_queue_stats))


@router.post("/queues/{queue}/pause")
async def pause_queue(visitor: Operator, queue: str, reason: Reason = "") -> Response:
    await in_transaction(_pause, visitor, queue, storable(reason.strip()) or None)
    return see_other("/ui/queues", f"Queue {queue} is paused. Running jobs go on.")


@router.post("/queues/{queue}/resume")
async def resume_queue(visitor: Operator, queue: str) -> Response:
    await in_transaction(_resume, visitor, queue)
    return see_other("/ui/queues", f"Queue {queue} goes on.")


def _pause(session: Session, visitor: Visitor, queue: str, reason: str | None) -> None:
    _check_queue(queue)
    limit_commands.pause(session, "queue", queue, by=visitor.identity.actor, reason=reason)
    visitor.note(session, "queue.pause", queue, reason=reason)


def _resume(session: Session, visitor: Visitor, queue: str) -> None:
    _check_queue(queue)
    limit_commands.resume(session, "queue", queue)
    visitor.note(session, "queue.resume", queue)


def _check_queue(queue: str) -> None:
    if queue not in QUEUES:
        raise NotFound(f"Queue {queue} not found", code="queue_not_found")


@router.get("/workers")
async def show_workers(request: Request, visitor: Operator) -> Response:
    alive, exited = await read(_workers, before_uuid(request))
    listing = cut(request, exited, lambda row: row, lambda row: row["id"])
    return page(request, "workers.html", visitor=visitor, alive=alive, exited=listing)


def _workers(session: Session, before_id: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    alive = workers.list_workers(session, limit=200)
    exited = workers.list_workers(session, states=("stopped", "dead"), limit=PAGE_ROWS + 1, before_id=before_id)
    return alive, exited


@router.post("/workers/{worker_id}/{order}")
async def order_worker(visitor: Operator, worker_id: str, order: Literal["pause", "resume", "drain"]) -> Response:
    await in_transaction(_order, visitor, worker_id, order)
    return see_other("/ui/workers", f"The order was given to the worker: {order}.")


def _order(session: Session, visitor: Visitor, worker_id: str, order: Order) -> None:
    workers.order(session, worker_id, order)
    visitor.note(session, f"worker.{order}", worker_id)


@router.get("/schedules")
async def show_schedules(request: Request, visitor: Reader) -> Response:
    rows = await read(_schedules, visitor.tenant, before_number(request) or 0)
    listing = cut(request, rows, lambda row: row, lambda row: row["id"])
    return page(request, "schedules.html", visitor=visitor, listing=listing)


def _schedules(session: Session, tenant: str, after_id: int) -> list[dict[str, Any]]:
    rows = store.list_schedules(session, tenant, PAGE_ROWS + 1, after_id=after_id)
    return [store.schedule_view(row) | {"words": in_words(row.cron, row.every_s)} for row in rows]


@router.get("/schedules/{schedule_id}")
async def show_schedule(request: Request, visitor: Reader, schedule_id: int) -> Response:
    schedule = await read(_schedule, visitor.tenant, schedule_id)
    return page(request, "schedule.html", visitor=visitor, schedule=schedule)


def _schedule(session: Session, tenant: str, schedule_id: int) -> dict[str, Any]:
    row = store.get(session, tenant, schedule_id)
    return store.schedule_detail(session, row) | {"words": in_words(row.cron, row.every_s)}


@router.post("/schedules/{schedule_id}/{act}")
async def act_on_schedule(visitor: Writer, schedule_id: int, act: Literal["run", "pause", "resume"]) -> Response:
    await in_transaction(_act_on_schedule, visitor, schedule_id, act)
    message = {"run": "Its job was started.", "pause": "The schedule is paused.", "resume": "The schedule goes on."}
    return see_other(f"/ui/schedules/{schedule_id}", message[act])


def _act_on_schedule(session: Session, visitor: Visitor, schedule_id: int, act: str) -> None:
    row = store.get(session, visitor.tenant, schedule_id)
    require_schedule_access(visitor.identity, row)
    if act == "run":
        store.run_now(session, visitor.tenant, schedule_id, visitor.identity.request_id)
    else:
        (store.pause if act == "pause" else store.resume)(session, visitor.tenant, schedule_id)
    visitor.note(session, f"schedule.{act}", row.name)


def in_words(cron: str | None, every_s: float | None) -> str:
    """Return a cron line or an interval as words; the line itself if it cannot be put into words."""
    if cron is None:
        return f"every {every_s:g} s" if every_s is not None else ""
    if cron in _CRON_WORDS:
        return _CRON_WORDS[cron]
    options = Options()
    options.casing_type = CasingTypeEnum.Sentence
    options.use_24hour_time_format = True
    options.locale_code = "en_US"
    try:
        return str(ExpressionDescriptor(cron, options).get_description())
    except _CRON_FAULTS:
        return cron
