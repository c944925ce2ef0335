"""Queues over HTTP, and pauses and limits of queues, kinds and tenants; for operators."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Identity, Operator
from app.api.models.base import documented
from app.api.models.queues import LimitState, QueueList, TenantLimitState
from app.core.db import in_transaction, read
from app.core.errors import NotFound
from app.core.sql import storable
from app.jobs.admission import limits
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
    Field(ge=1, le=MAX_CAP, description="Maximum number of running jobs; null: no limit."),
]


class PauseRequest(BaseModel):
    """The reason of a pause, which explanations of waiting jobs show."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "The shop is down."}]})

    reason: Annotated[str, Field(max_length=500)] | None = None


class KindLimits(BaseModel):
    """Limits of a kind. Null restores the cap of its definition."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"running_cap": 4}]})

    running_cap: RunningCap = None


class TenantLimits(BaseModel):
    """Limits of a tenant. Absent fields are reset: no cap, weight 1."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"running_cap": 20, "weight": 3}]})

    running_cap: RunningCap = None
    weight: Annotated[
        int, Field(ge=1, le=MAX_WEIGHT, description="Share of workers relative to the weights of other tenants.")
    ] = 1


PauseBody = Annotated[PauseRequest | None, Body()]
LIMIT: dict[int | str, dict[str, Any]] = {200: documented(LimitState)}
TENANT_LIMIT: dict[int | str, dict[str, Any]] = {200: documented(TenantLimitState)}


@router.get(
    "/queues", summary="List queues with depth, age, workers and pauses", responses={200: documented(QueueList)}
)
async def list_queues(caller: Operator) -> dict[str, Any]:
    return {"data": await read(queue_stats.read_queue_stats)}


@router.post("/queues/{queue}/pause", summary="Pause a queue", responses=LIMIT)
async def pause_queue(caller: Operator, queue: QueueName, body: PauseBody = None) -> dict[str, Any]:
    """Running jobs continue, and queued ones keep their order. A pause survives restarts."""
    return await in_transaction(_pause, caller, "queue", queue, body)


@router.post("/queues/{queue}/resume", summary="Resume a queue", responses=LIMIT)
async def resume_queue(caller: Operator, queue: QueueName) -> dict[str, Any]:
    return await in_transaction(_resume, caller, "queue", queue)


@router.post("/kinds/{kind}/pause", summary="Pause a kind of job", responses=LIMIT)
async def pause_kind(caller: Operator, kind: KindName, body: PauseBody = None) -> dict[str, Any]:
    return await in_transaction(_pause, caller, "kind", kind, body)


@router.post("/kinds/{kind}/resume", summary="Resume a kind of job", responses=LIMIT)
async def resume_kind(caller: Operator, kind: KindName) -> dict[str, Any]:
    return await in_transaction(_resume, caller, "kind", kind)


@router.get("/kinds/{kind}/limits", summary="Get the limits of a kind", responses=LIMIT)
async def get_kind_limits(caller: Operator, kind: KindName) -> dict[str, Any]:
    return await read(_show, "kind", kind)


@router.put("/kinds/{kind}/limits", summary="Set the limits of a kind", responses=LIMIT)
async def set_kind_limits(caller: Operator, kind: KindName, limits: KindLimits) -> dict[str, Any]:
    return await in_transaction(_limit, caller, "kind", kind, limits.model_dump())


@router.post("/tenants/{tenant_id}/pause", summary="Pause a tenant", responses=TENANT_LIMIT)
async def pause_tenant(caller: Operator, tenant_id: TenantName, body: PauseBody = None) -> dict[str, Any]:
    return await in_transaction(_pause, caller, "tenant", tenant_id, body)


@router.post("/tenants/{tenant_id}/resume", summary="Resume a tenant", responses=TENANT_LIMIT)
async def resume_tenant(caller: Operator, tenant_id: TenantName) -> dict[str, Any]:
    return await in_transaction(_resume, caller, "tenant", tenant_id)


@router.get("/tenants/{tenant_id}/limits", summary="Get the limits of a tenant", responses=TENANT_LIMIT)
async def get_tenant_limits(caller: Operator, tenant_id: TenantName) -> dict[str, Any]:
    return await read(_show, "tenant", tenant_id)


@router.put("/tenants/{tenant_id}/limits", summary="Set the limits of a tenant", responses=TENANT_LIMIT)
async def set_tenant_limits(caller: Operator, tenant_id: TenantName, limits: TenantLimits) -> dict[str, Any]:
    return await in_transaction(_limit, caller, "tenant", tenant_id, limits.model_dump())


def _pause(session: Session, caller: Identity, scope: Scope, name: str, body: PauseRequest | None) -> dict[str, Any]:
    _must_exist(session, scope, name)
    reason = storable(body.reason) if body and body.reason else None
    limit = limit_commands.pause(session, scope, name, by=caller.actor, reason=reason)
    _note(session, caller, limit, "pause", reason=reason)
    return _view(session, limit)


def _resume(session: Session, caller: Identity, scope: Scope, name: str) -> dict[str, Any]:
    _must_exist(session, scope, name)
    limit = limit_commands.resume(session, scope, name)
    _note(session, caller, limit, "resume")
    return _view(session, limit)


def _show(session: Session, scope: Scope, name: str) -> dict[str, Any]:
    _must_exist(session, scope, name)
    return _view(session, limits.find(session, scope, name))


def _limit(session: Session, caller: Identity, scope: Scope, name: str, limits: dict[str, Any]) -> dict[str, Any]:
    _must_exist(session, scope, name)
    limit = limit_commands.set_limits(session, scope, name, **limits)
    _note(session, caller, limit, "limit", **limits)
    return _view(session, limit)


def _note(session: Session, caller: Identity, limit: Limit, act: str, **details: Any) -> None:
    """A tenant's own audit log gets the entries of its limits, the operator's log all others."""
    tenant = limit.name if limit.scope == "tenant" else caller.tenant
    note(session, caller, f"{limit.scope}.{act}", limit.name, tenant=tenant, **details)


def _view(session: Session, limit: Limit) -> dict[str, Any]:
    """Return the limit and the number of its running jobs."""
    view = queue_stats.limit_view(limit) | {"running": limits.count_running(session, limit.scope, limit.name)}
    return view | ({"weight": limit.weight} if limit.scope == "tenant" else {})


def _must_exist(session: Session, scope: Scope, name: str) -> None:
    """Raises NotFound for an unknown name: its pause would have no effect."""
    if scope == "tenant":
        directory.get(session, name)
    elif name not in (QUEUES if scope == "queue" else kinds()) and not limits.is_known(session, scope, name):
        raise NotFound(f"{scope.capitalize()} {name} not found", code=f"{scope}_not_found")
