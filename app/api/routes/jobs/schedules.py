"""Schedules over HTTP: make, list, show, change, pause, run now, delete."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

import app.retention.jobs  # noqa: F401  its kinds can be run from here
from app.api.http.auth import Caller, Identity
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import Page, Paging
from app.api.http.responses import answer_of, answered
from app.api.routes.jobs.start import open_kind
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotAllowed, NotFound
from app.core.sql import storable
from app.jobs.models import ScheduleRow
from app.jobs.schedules import store
from app.jobs.schedules.cron import LONGEST_CRON, LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S
from app.jobs.schedules.firing import CatchUp, Overlap
from app.jobs.schedules.store import MOST_CATCH_UP, Plan
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["schedules"])

# Every number of up to 18 digits is one that a database knows.
ID = re.compile(r"[0-9]{1,18}")
Name = Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Kind = Annotated[str, Field(max_length=100)]
Cron = Annotated[
    str, Field(max_length=LONGEST_CRON, description="minute, hour, day, month, weekday; or @daily and the like")
]
Every = Annotated[int, Field(ge=SHORTEST_INTERVAL_S, le=LONGEST_INTERVAL_S, description="Seconds, from its making on.")]
Zone = Annotated[str, Field(max_length=64, description="The time zone in which `cron` is read.")]
Limit = Annotated[int, Field(ge=1, le=MOST_CATCH_UP, description="How many `catch_up: all` starts at most.")]


class ScheduleRequest(BaseModel):
    """Either `cron` or `every_s`.

    `catch_up`: of ticks that nobody saw in time start none (skip), one for all (once), each of the last (all).
    `overlap`: a tick while a job of an earlier one is open is dropped (skip), waits (queue), cancels it (replace).
    """

    model_config = ConfigDict(extra="forbid")

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
    """Only what is given changes; `cron` takes the place of `every_s`, and the other way round."""

    model_config = ConfigDict(extra="forbid")

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
        given = {name: getattr(self, name) for name in Plan.__dataclass_fields__}
        return {name: value for name, value in given.items() if value is not None}


def _id(schedule_id: str) -> int:
    if not ID.fullmatch(schedule_id):
        raise NotFound(f"Schedule {schedule_id} not found", code="schedule_not_found")
    return int(schedule_id)


def _check_source(caller: Identity, row: ScheduleRow) -> None:
    """What the program has declared is everybody's: it takes an administrator to touch it."""
    if row.in_code and not caller.may(scopes.ADMIN):
        raise NotAllowed(
            f"schedule {row.name!r} is the program's; this key has not the scope 'admin'", code="scope_missing"
        )


@router.get("/schedules", summary="List schedules, in the order of their making")
async def list_schedules(
    caller: Caller, paging: Paging, kind: Annotated[str | None, Query(max_length=100)] = None
) -> dict[str, Any]:
    after = 0
    if paging.after is not None:
        match paging.after:
            case [int(after)] if 0 <= after < 2**63:
                pass
            case _:
                raise InvalidInput("the cursor is not one of ours", code="cursor")
    return await read(_page, caller.tenant, paging, kind, after)


def _page(session: Session, tenant: str, paging: Page, kind: str | None, after: int) -> dict[str, Any]:
    rows = store.list_schedules(session, tenant, paging.limit + 1, kind=storable(kind), after_id=after)
    return paging.cut(rows, store.schedule_view, lambda row: [row.id])


@router.post("/schedules", summary="Make a schedule", status_code=201)
async def create_schedule(request: Request, caller: Caller, once: Idempotent, body: ScheduleRequest) -> Response:
    """The kind must be one that the caller may start."""
    open_kind(caller, body.kind)

    def work(session: Session) -> Answer:
        row = store.create(session, caller.tenant, body.name, body.plan(), paused=body.paused)
        return Answer(201, store.schedule_detail(session, row))

    answer = await once.run(caller.tenant, work)
    response = await answered(request, caller.tenant, answer)
    response.headers["Location"] = f"/api/schedules/{answer.body['id']}"
    return response


@router.get("/schedules/{schedule_id}", summary="One schedule, its next times and its last ticks")
async def show_schedule(caller: Caller, schedule_id: str) -> dict[str, Any]:
    return await read(_show, caller.tenant, schedule_id)


def _show(session: Session, tenant: str, schedule_id: str) -> dict[str, Any]:
    return store.schedule_detail(session, store.get(session, tenant, _id(schedule_id)))


@router.patch("/schedules/{schedule_id}", summary="Change a schedule")
async def change_schedule(caller: Caller, schedule_id: str, body: ScheduleChange) -> dict[str, Any]:
    """409 for one that the program declares."""
    return await in_transaction(_change, caller, schedule_id, body)


def _change(session: Session, caller: Identity, schedule_id: str, body: ScheduleChange) -> dict[str, Any]:
    changed = store.change(session, caller.tenant, _id(schedule_id), body.name, body.changes())
    open_kind(caller, changed.kind)
    return store.schedule_detail(session, changed)


@router.delete("/schedules/{schedule_id}", summary="Delete a schedule; its jobs stay", status_code=204)
async def delete_schedule(caller: Caller, schedule_id: str) -> None:
    await in_transaction(store.delete, caller.tenant, _id(schedule_id))


@router.post("/schedules/{schedule_id}/pause", summary="Start nothing until it is resumed")
async def pause_schedule(caller: Caller, schedule_id: str) -> dict[str, Any]:
    return await in_transaction(_turn, caller, schedule_id, on=False)


@router.post("/schedules/{schedule_id}/resume", summary="Go on with the next time from now")
async def resume_schedule(caller: Caller, schedule_id: str) -> dict[str, Any]:
    return await in_transaction(_turn, caller, schedule_id, on=True)


def _turn(session: Session, caller: Identity, schedule_id: str, *, on: bool) -> dict[str, Any]:
    turn = store.resume if on else store.pause
    row = turn(session, caller.tenant, _id(schedule_id))
    _check_source(caller, row)
    return store.schedule_detail(session, row)


@router.post("/schedules/{schedule_id}/run", summary="Start its job now", status_code=202)
async def run_schedule(request: Request, caller: Caller, once: Idempotent, schedule_id: str) -> Response:
    """409 while a job of it is open."""

    def work(session: Session) -> Answer:
        row = store.get(session, caller.tenant, _id(schedule_id))
        _check_source(caller, row)
        return answer_of(store.run_now(session, caller.tenant, row.id, caller.request_id))

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))
