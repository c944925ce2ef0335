"""Schedules over HTTP: create, list, read, update, pause, run now, delete."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

import app.retention.jobs  # noqa: F401  schedules of its kinds can be run from here
from app.access.kinds import require_schedule_access, require_startable_kind
from app.api.http.auth import Caller, Identity
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import ListQuery, Paging
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.jobs import JOB_ACCEPTED
from app.api.models.schedules import ScheduleDetail, SchedulePage
from app.core.db import in_transaction, read
from app.core.errors import NotFound
from app.core.sql import storable
from app.jobs.schedules import store
from app.jobs.schedules.cron import MAX_CRON_LENGTH, MAX_INTERVAL_S, MIN_INTERVAL_S
from app.jobs.schedules.firing import CatchUp, Overlap
from app.jobs.schedules.store import MAX_CATCH_UP, Plan

router = APIRouter(prefix="/api", tags=["schedules"])

# Every number of up to 18 digits fits the column.
ID = re.compile(r"[0-9]{1,18}")
Name = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Kind = Annotated[str, Field(max_length=100)]
Cron = Annotated[
    str, Field(max_length=MAX_CRON_LENGTH, description="Minute, hour, day, month, weekday; or a word such as @daily.")
]
Every = Annotated[
    int,
    Field(ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S, description="Seconds between ticks, counted from its creation."),
]
Zone = Annotated[str, Field(max_length=64, description="The time zone in which `cron` is read.")]
Limit = Annotated[int, Field(ge=1, le=MAX_CATCH_UP, description="Maximum number of jobs that `catch_up: all` starts.")]

SCHEDULE: dict[int | str, dict[str, Any]] = {200: documented(ScheduleDetail)}


class ScheduleRequest(BaseModel):
    """A schedule with either `cron` or `every_s`.

    `catch_up`: for ticks missed while no relay ran, start no job (skip), one job (once) or one a tick (all).
    `overlap`: a tick during an open job of an earlier tick is dropped (skip), waits (queue) or cancels it (replace).
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "nightly check",
                    "kind": "documents.ingest",
                    "payload": {"document_id": 1},
                    "cron": "30 2 * * *",
                    "timezone": "Europe/Berlin",
                }
            ]
        },
    )

    name: Name
    kind: Kind
    payload: dict[str, Any] = {}
    cron: Cron | None = None
    every_s: Every | None = None
    timezone: Zone = "UTC"
    catch_up: CatchUp = "once"
    catch_up_limit: Limit = 10
    overlap: Overlap = "skip"
    paused: bool = False

    def plan(self) -> Plan:
        return Plan(**{name: getattr(self, name) for name in Plan.__dataclass_fields__})


class ScheduleChange(BaseModel):
    """Changes to a schedule; absent fields stay. `cron` replaces `every_s`, and the reverse."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"cron": "0 3 * * *"}]})

    name: Name | None = None
    kind: Kind | None = None
    payload: dict[str, Any] | None = None
    cron: Cron | None = None
    every_s: Every | None = None
    timezone: Zone | None = None
    catch_up: CatchUp | None = None
    catch_up_limit: Limit | None = None
    overlap: Overlap | None = None

    def changes(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in Plan.__dataclass_fields__}
        return {name: value for name, value in fields.items() if value is not None}


def _id(schedule_id: str) -> int:
    if not ID.fullmatch(schedule_id):
        raise NotFound(f"Schedule {schedule_id} not found", code="schedule_not_found")
    return int(schedule_id)


@router.get("/schedules", summary="List schedules, the oldest first", responses={200: documented(SchedulePage)})
async def list_schedules(
    caller: Caller, paging: Paging, kind: Annotated[str | None, Query(max_length=100)] = None
) -> dict[str, Any]:
    """Schedules of the API and those that the program declares."""
    return await read(_page, caller.tenant, paging, kind, paging.after_number() or 0)


def _page(session: Session, tenant: str, paging: ListQuery, kind: str | None, after: int) -> dict[str, Any]:
    rows = store.list_schedules(session, tenant, paging.limit + 1, kind=storable(kind), after_id=after)
    return paging.cut(rows, store.schedule_view, lambda row: [row.id])


@router.post("/schedules", summary="Create a schedule", status_code=201, responses={201: documented(ScheduleDetail)})
async def create_schedule(request: Request, caller: Caller, once: Idempotent, body: ScheduleRequest) -> Response:
    """The caller must be allowed to start jobs of the kind."""
    require_startable_kind(caller, body.kind)

    def work(session: Session) -> Answer:
        row = store.create(session, caller.tenant, body.name, body.plan(), paused=body.paused)
        return Answer(201, store.schedule_detail(session, row))

    answer = await once.run(caller, work)
    response = await answered(request, caller.tenant, answer)
    response.headers["Location"] = f"/api/schedules/{answer.body['id']}"
    return response


@router.get("/schedules/{schedule_id}", summary="Get a schedule, its next times and its last ticks", responses=SCHEDULE)
async def get_schedule(caller: Caller, schedule_id: str) -> dict[str, Any]:
    return await read(_show, caller.tenant, schedule_id)


def _show(session: Session, tenant: str, schedule_id: str) -> dict[str, Any]:
    return store.schedule_detail(session, store.get(session, tenant, _id(schedule_id)))


@router.patch("/schedules/{schedule_id}", summary="Change a schedule", responses=SCHEDULE)
async def update_schedule(caller: Caller, schedule_id: str, body: ScheduleChange) -> dict[str, Any]:
    """409 for a schedule that the program declares."""
    return await in_transaction(_change, caller, schedule_id, body)


def _change(session: Session, caller: Identity, schedule_id: str, body: ScheduleChange) -> dict[str, Any]:
    require_schedule_access(caller, store.get(session, caller.tenant, _id(schedule_id)))
    changed = store.change(session, caller.tenant, _id(schedule_id), body.name, body.changes())
    require_startable_kind(caller, changed.kind)
    return store.schedule_detail(session, changed)


@router.delete("/schedules/{schedule_id}", summary="Delete a schedule; its jobs stay", status_code=204)
async def delete_schedule(caller: Caller, schedule_id: str) -> None:
    await in_transaction(_delete, caller, _id(schedule_id))


def _delete(session: Session, caller: Identity, schedule_id: int) -> None:
    require_schedule_access(caller, store.get(session, caller.tenant, schedule_id))
    store.delete(session, caller.tenant, schedule_id)


@router.post("/schedules/{schedule_id}/pause", summary="Pause a schedule", responses=SCHEDULE)
async def pause_schedule(caller: Caller, schedule_id: str) -> dict[str, Any]:
    return await in_transaction(_switch, caller, schedule_id, on=False)


@router.post(
    "/schedules/{schedule_id}/resume", summary="Resume a schedule with its next time from now", responses=SCHEDULE
)
async def resume_schedule(caller: Caller, schedule_id: str) -> dict[str, Any]:
    return await in_transaction(_switch, caller, schedule_id, on=True)


def _switch(session: Session, caller: Identity, schedule_id: str, *, on: bool) -> dict[str, Any]:
    switch = store.resume if on else store.pause
    row = switch(session, caller.tenant, _id(schedule_id))
    require_schedule_access(caller, row)
    return store.schedule_detail(session, row)


@router.post(
    "/schedules/{schedule_id}/run", summary="Start the job of a schedule now", status_code=202, responses=JOB_ACCEPTED
)
async def run_schedule(request: Request, caller: Caller, once: Idempotent, schedule_id: str) -> Response:
    """409 while a job of the schedule is open."""

    def work(session: Session) -> Answer:
        row = store.get(session, caller.tenant, _id(schedule_id))
        require_schedule_access(caller, row)
        return answer_of(store.run_now(session, caller.tenant, row.id, caller.request_id))

    return await answered(request, caller.tenant, await once.run(caller, work))
