"""What stands before queued jobs, over HTTP: the queues, and pauses and limits of queues, kinds and tenants."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Identity, Operator
from app.api.routes.admin.keys import note
from app.core.db import in_transaction, read
from app.core.errors import NotFound
from app.core.sql import storable
from app.jobs.admission import limits as gates
from app.jobs.admission.limits import Limit, Scope
from app.jobs.definition import kinds
from app.jobs.inspect import queue_stats
from app.jobs.ledger import limit_commands
from app.jobs.ledger.limit_commands import MAX_CAP, MAX_WEIGHT
from app.jobs.queues import QUEUES
from app.tenants import directory

router = APIRouter(prefix="/api", tags=["queues"])

QueueName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=32)]
KindName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=100)]
TenantName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=64)]
RunningCap = Annotated[
    int | None,
    Field(ge=1, le=MAX_CAP, description="How many may run at once; null: as many as there is room for."),
]


class Pause(BaseModel):
    """Why, for those who wonder later."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=500)] | None = None


class KindLimits(BaseModel):
    """Null takes the cap of the kind's definition again."""

    model_config = ConfigDict(extra="forbid")

    running_cap: RunningCap = None


class TenantLimits(BaseModel):
    """What is left out is set back: no cap, weight 1."""

    model_config = ConfigDict(extra="forbid")

    running_cap: RunningCap = None
    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT, description="The share beside other tenants' weights.")] = 1


Why = Annotated[Pause | None, Body()]


@router.get("/queues", summary="The queues: depth, age, who serves them, whether paused")
async def list_queues(caller: Operator) -> dict[str, Any]:
    return {"data": await read(queue_stats.read_queue_stats)}


@router.post("/queues/{queue}/pause", summary="Start no more jobs of a queue")
async def pause_queue(caller: Operator, queue: QueueName, why: Why = None) -> dict[str, Any]:
    """What runs goes on; what waits keeps its place. A pause survives restarts of everything."""
    return await in_transaction(_pause, caller, "queue", queue, why)


@router.post("/queues/{queue}/resume", summary="Start jobs of a queue again")
async def resume_queue(caller: Operator, queue: QueueName) -> dict[str, Any]:
    return await in_transaction(_resume, caller, "queue", queue)


@router.post("/kinds/{kind}/pause", summary="Start no more jobs of a kind")
async def pause_kind(caller: Operator, kind: KindName, why: Why = None) -> dict[str, Any]:
    return await in_transaction(_pause, caller, "kind", kind, why)


@router.post("/kinds/{kind}/resume", summary="Start jobs of a kind again")
async def resume_kind(caller: Operator, kind: KindName) -> dict[str, Any]:
    return await in_transaction(_resume, caller, "kind", kind)


@router.get("/kinds/{kind}/limits", summary="How many jobs of a kind may run at once")
async def kind_limits(caller: Operator, kind: KindName) -> dict[str, Any]:
    return await read(_show, "kind", kind)


@router.put("/kinds/{kind}/limits", summary="Say how many jobs of a kind may run at once")
async def set_kind_limits(caller: Operator, kind: KindName, limits: KindLimits) -> dict[str, Any]:
    return await in_transaction(_limit, caller, "kind", kind, limits.model_dump())


@router.post("/tenants/{tenant_id}/pause", summary="Start no more jobs of a tenant")
async def pause_tenant(caller: Operator, tenant_id: TenantName, why: Why = None) -> dict[str, Any]:
    return await in_transaction(_pause, caller, "tenant", tenant_id, why)


@router.post("/tenants/{tenant_id}/resume", summary="Start jobs of a tenant again")
async def resume_tenant(caller: Operator, tenant_id: TenantName) -> dict[str, Any]:
    return await in_transaction(_resume, caller, "tenant", tenant_id)


@router.get("/tenants/{tenant_id}/limits", summary="A tenant's share and cap")
async def tenant_limits(caller: Operator, tenant_id: TenantName) -> dict[str, Any]:
    return await read(_show, "tenant", tenant_id)


@router.put("/tenants/{tenant_id}/limits", summary="Set a tenant's share and cap")
async def set_tenant_limits(caller: Operator, tenant_id: TenantName, limits: TenantLimits) -> dict[str, Any]:
    return await in_transaction(_limit, caller, "tenant", tenant_id, limits.model_dump())


def _pause(session: Session, caller: Identity, scope: Scope, name: str, why: Pause | None) -> dict[str, Any]:
    _must_exist(session, scope, name)
    reason = storable(why.reason) if why and why.reason else None
    gate = limit_commands.pause(session, scope, name, by=caller.actor, reason=reason)
    _note(session, caller, gate, "pause", reason=reason)
    return _view(session, gate)


def _resume(session: Session, caller: Identity, scope: Scope, name: str) -> dict[str, Any]:
    _must_exist(session, scope, name)
    gate = limit_commands.resume(session, scope, name)
    _note(session, caller, gate, "resume")
    return _view(session, gate)


def _show(session: Session, scope: Scope, name: str) -> dict[str, Any]:
    _must_exist(session, scope, name)
    return _view(session, gates.find(session, scope, name))


def _limit(session: Session, caller: Identity, scope: Scope, name: str, limits: dict[str, Any]) -> dict[str, Any]:
    _must_exist(session, scope, name)
    gate = limit_commands.set_limits(session, scope, name, **limits)
    _note(session, caller, gate, "limit", **limits)
    return _view(session, gate)


def _note(session: Session, caller: Identity, gate: Limit, act: str, **details: Any) -> None:
    """Of a tenant's gate its own administrators read, of the others the operator's."""
    tenant = gate.name if gate.scope == "tenant" else caller.tenant
    note(session, caller, f"{gate.scope}.{act}", gate.name, tenant=tenant, **details)


def _view(session: Session, gate: Limit) -> dict[str, Any]:
    """The gate, with what runs behind it."""
    shown = queue_stats.limit_view(gate) | {"running": gates.count_running(session, gate.scope, gate.name)}
    return shown | ({"weight": gate.weight} if gate.scope == "tenant" else {})


def _must_exist(session: Session, scope: Scope, name: str) -> None:
    """Raises NotFound for what nobody knows: its pause would hold up nothing."""
    if scope == "tenant":
        directory.get(session, name)
    elif name not in (QUEUES if scope == "queue" else kinds()) and not gates.is_known(session, scope, name):
        raise NotFound(f"{scope.capitalize()} {name} not found", code=f"{scope}_not_found")
