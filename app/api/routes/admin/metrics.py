"""How long requests and the steps of work took, as clients of the old service read it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.http.auth import Identity, Reader
from app.api.http.tenant_access import OtherTenant, reachable_tenant
from app.core.clock import moment
from app.core.db import read
from app.core.sql import storable
from app.metrics import query
from app.metrics.models import OperationMetric, RequestMetric
from app.metrics.query import OperationFilter, RequestFilter, TenantScope
from app.tenants import scopes

router = APIRouter(prefix="/api/metrics", tags=["metrics"])

Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=10**9)]
Hours = Annotated[int, Query(ge=1, le=168, description="Of the last so many hours.")]
LeastMs = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="That took so long or longer.")]
Word = Annotated[str | None, Query(max_length=100)]


@router.get("/requests", summary="Requests and how long they took, the newest first")
async def list_requests(
    caller: Reader,
    path: Annotated[str | None, Query(max_length=500, description="A path, or a route: /api/jobs/{job_id}.")] = None,
    method: Word = None,
    min_duration_ms: LeastMs = None,
    hours: Hours = 24,
    limit: Limit = 100,
    offset: Offset = 0,
    tenant: OtherTenant = None,
) -> dict[str, Any]:
    """`summary` counts all that were asked for, not this page alone. Operators also see what came without a key."""
    wanted = RequestFilter(hours, storable(path), storable(method), min_duration_ms)
    rows, sums = await read(query.requests, _whose(caller, tenant), wanted, limit, offset)
    shown = [_request_view(row) for row in rows]
    return {"metrics": shown, "total": sums["total_requests"], "limit": limit, "offset": offset, "summary": sums}


@router.get("/operations", summary="Steps of work and how long they took, the newest first")
async def list_operations(
    caller: Reader,
    operation_type: Word = None,
    operation_name: Word = None,
    document_url: Annotated[str | None, Query(max_length=3000)] = None,
    success: bool | None = None,
    min_duration_ms: LeastMs = None,
    hours: Hours = 24,
    limit: Limit = 100,
    offset: Offset = 0,
    tenant: OtherTenant = None,
) -> dict[str, Any]:
    """`summary_by_type` counts all that were asked for, not this page alone."""
    type_, name, url = storable((operation_type, operation_name, document_url))
    wanted = OperationFilter(hours, type_, name, url, success, min_duration_ms)
    rows, by_type = await read(query.operations, _whose(caller, tenant), wanted, limit, offset)
    total = sum(sums["total_operations"] for sums in by_type.values())
    shown = [_operation_view(row) for row in rows]
    return {"metrics": shown, "total": total, "limit": limit, "offset": offset, "summary_by_type": by_type}


@router.get("/summary", summary="Requests, steps of work and the slowest routes at a look")
async def show_summary(caller: Reader, hours: Hours = 24, tenant: OtherTenant = None) -> dict[str, Any]:
    """An error is an answer of 400 or more. `slowest_endpoints` are routes: one line for all ids in a path."""
    return await read(query.summary, _whose(caller, tenant), hours)


def _whose(caller: Identity, tenant: str | None) -> TenantScope:
    """What came without a key is no tenant's: operators see it beside their own."""
    meant = reachable_tenant(caller, tenant)
    return TenantScope(meant, keyless=meant == caller.tenant and caller.may(scopes.OPERATOR))


def _request_view(row: RequestMetric) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "timestamp": moment(row.at),
        "method": row.method,
        "path": row.path,
        "status_code": row.status_code,
        "duration_ms": row.duration_ms,
        "request_id": row.request_id,
        "client_ip": row.client_ip,
    }


def _operation_view(row: OperationMetric) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "timestamp": moment(row.at),
        "operation_type": row.operation_type,
        "operation_name": row.operation_name,
        "duration_ms": row.duration_ms,
        "success": row.success,
        "error_message": row.error_message,
        "request_id": row.request_id,
        "job_id": row.job_id,
        "document_url": row.document_url,
    }
