"""Durations of requests and of steps of work, in the shapes of the old service."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.http.auth import Identity, Reader
from app.api.http.tenant_access import OtherTenant, reachable_tenant
from app.api.models.base import documented
from app.api.models.metrics import OperationTimings, RequestTimings, TimingSummary
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
Hours = Annotated[int, Query(ge=1, le=168, description="Number of hours to look back.")]
MinMs = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="Minimum duration.")]
Word = Annotated[str | None, Query(max_length=100)]


@router.get(
    "/requests", summary="List requests with durations, the newest first", responses={200: documented(RequestTimings)}
)
async def list_request_metrics(
    caller: Reader,
    path: Annotated[str | None, Query(max_length=500, description="A path, or a route: /api/jobs/{job_id}.")] = None,
    method: Word = None,
    min_duration_ms: MinMs = None,
    hours: Hours = 24,
    limit: Limit = 100,
    offset: Offset = 0,
    tenant: OtherTenant = None,
) -> dict[str, Any]:
    """`summary` covers all requests that match. Operators also get requests that came without a key."""
    conditions = RequestFilter(hours, storable(path), storable(method), min_duration_ms)
    rows, sums = await read(query.list_requests, _whose(caller, tenant), conditions, limit, offset)
    metrics = [_request_view(row) for row in rows]
    return {"metrics": metrics, "total": sums["total_requests"], "limit": limit, "offset": offset, "summary": sums}


@router.get(
    "/operations",
    summary="List steps of work with durations, the newest first",
    responses={200: documented(OperationTimings)},
)
async def list_operation_metrics(
    caller: Reader,
    operation_type: Word = None,
    operation_name: Word = None,
    document_url: Annotated[str | None, Query(max_length=3000)] = None,
    success: bool | None = None,
    min_duration_ms: MinMs = None,
    hours: Hours = 24,
    limit: Limit = 100,
    offset: Offset = 0,
    tenant: OtherTenant = None,
) -> dict[str, Any]:
    """`summary_by_type` covers all steps that match."""
    type_, name, url = storable((operation_type, operation_name, document_url))
    conditions = OperationFilter(hours, type_, name, url, success, min_duration_ms)
    rows, by_type = await read(query.list_operations, _whose(caller, tenant), conditions, limit, offset)
    total = sum(sums["total_operations"] for sums in by_type.values())
    metrics = [_operation_view(row) for row in rows]
    return {"metrics": metrics, "total": total, "limit": limit, "offset": offset, "summary_by_type": by_type}


@router.get(
    "/summary",
    summary="Get totals of requests and steps of work, and the slowest routes",
    responses={200: documented(TimingSummary)},
)
async def get_metrics_summary(caller: Reader, hours: Hours = 24, tenant: OtherTenant = None) -> dict[str, Any]:
    """An error is an answer of status 400 or more. `slowest_endpoints` are routes, with all their ids together."""
    return await read(query.summarize, _whose(caller, tenant), hours)


def _whose(caller: Identity, tenant: str | None) -> TenantScope:
    """Requests without a key belong to no tenant: operators get them with those of their own."""
    reachable = reachable_tenant(caller, tenant)
    return TenantScope(reachable, keyless=reachable == caller.tenant and caller.may(scopes.OPERATOR))


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
