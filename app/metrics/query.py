"""Queries of metrics over the last hours: rows with their sums, and a summary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.metrics.models import OperationMetric, RequestMetric

MAX_ENDPOINTS = 10
FIRST_ERROR = 400
Condition = sa.ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class TenantScope:
    """Rows of one tenant, or of all with None; `keyless` adds requests without a key."""

    tenant: str | None
    keyless: bool = False

    def conditions(self, column: Any) -> list[Condition]:
        if self.tenant is None:
            return []
        if self.keyless:
            # Not `column = x OR column IS NULL`: with that SQLite sorts a whole day's rows to show the newest hundred.
            return [sa.func.coalesce(column, self.tenant) == self.tenant]
        return [column == self.tenant]


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Conditions on requests; a field with None does not filter. `path` is a path or the pattern of a route."""

    hours: int
    path: str | None = None
    method: str | None = None
    min_duration_ms: float | None = None

    def conditions(self, scope: TenantScope) -> list[Condition]:
        row = RequestMetric
        conditions = [*scope.conditions(row.tenant), row.at >= _since(self.hours)]
        if self.path is not None:
            conditions.append(sa.or_(row.path == self.path, row.route == self.path))
        if self.method is not None:
            conditions.append(row.method == self.method.upper())
        if self.min_duration_ms is not None:
            conditions.append(row.duration_ms >= self.min_duration_ms)
        return conditions


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Conditions on operations; a field with None does not filter."""

    hours: int
    operation_type: str | None = None
    operation_name: str | None = None
    document_url: str | None = None
    success: bool | None = None
    min_duration_ms: float | None = None

    def conditions(self, scope: TenantScope) -> list[Condition]:
        row = OperationMetric
        conditions = [*scope.conditions(row.tenant), row.at >= _since(self.hours)]
        for column in (row.operation_type, row.operation_name, row.document_url, row.success):
            value = getattr(self, column.key)
            if value is not None:
                conditions.append(column == value)
        if self.min_duration_ms is not None:
            conditions.append(row.duration_ms >= self.min_duration_ms)
        return conditions


def list_requests(
    session: Session, scope: TenantScope, filters: RequestFilter, limit: int, offset: int
) -> tuple[list[RequestMetric], dict[str, Any]]:
    """Return the newest rows first, and the sums over all matching rows."""
    conditions, row = filters.conditions(scope), RequestMetric
    query = sa.select(row).where(*conditions).order_by(row.at.desc(), row.id.desc()).limit(limit).offset(offset)
    total, *times = session.execute(sa.select(sa.func.count(), *_times(row.duration_ms)).where(*conditions)).one()
    return list(session.scalars(query)), {**_format_times(times), "total_requests": total}


def list_operations(
    session: Session, scope: TenantScope, filters: OperationFilter, limit: int, offset: int
) -> tuple[list[OperationMetric], dict[str, dict[str, Any]]]:
    """Return the newest rows first, and the sums over all matching rows by type."""
    conditions, row = filters.conditions(scope), OperationMetric
    query = sa.select(row).where(*conditions).order_by(row.at.desc(), row.id.desc()).limit(limit).offset(offset)
    done = sa.func.count().filter(row.success)
    sums = sa.select(row.operation_type, sa.func.count(), done, *_times(row.duration_ms)).where(*conditions)
    by_type = {
        name: {
            **_format_times(times),
            "total_operations": total,
            "successful_operations": good,
            "failed_operations": total - good,
            "success_rate": round(100 * good / total, 2),
        }
        for name, total, good, *times in session.execute(sums.group_by(row.operation_type).order_by(row.operation_type))
    }
    return list(session.scalars(query)), by_type


def summarize(session: Session, scope: TenantScope, hours: int) -> dict[str, Any]:
    """Return totals of requests, operations by type, and the routes with the longest average duration."""
    request_conditions, operation_conditions = (
        RequestFilter(hours).conditions(scope),
        OperationFilter(hours).conditions(scope),
    )
    row, step = RequestMetric, OperationMetric
    mean, count = sa.func.avg(row.duration_ms), sa.func.count()
    faults = count.filter(row.status_code >= FIRST_ERROR)
    total, average, errors = session.execute(sa.select(count, mean, faults).where(*request_conditions)).one()
    failed = count.filter(~step.success)
    types = sa.select(step.operation_type, count, sa.func.avg(step.duration_ms), failed).where(*operation_conditions)
    routes = sa.select(row.route, mean, count).where(*request_conditions).group_by(row.route)
    return {
        "time_period_hours": hours,
        "requests": {"total": total, "avg_duration_ms": _ms(average), "error_count": errors},
        "operations_by_type": {
            name: {"total_operations": number, "avg_duration_ms": _ms(average), "error_count": errors}
            for name, number, average, errors in session.execute(
                types.group_by(step.operation_type).order_by(step.operation_type)
            )
        },
        "slowest_endpoints": [
            {"path": route, "avg_duration_ms": _ms(average), "request_count": number}
            for route, average, number in session.execute(routes.order_by(mean.desc(), row.route).limit(MAX_ENDPOINTS))
        ],
    }


def _since(hours: int) -> datetime:
    return clock.now() - timedelta(hours=hours)


def _times(column: Any) -> tuple[Any, Any, Any]:
    return sa.func.avg(column), sa.func.min(column), sa.func.max(column)


def _format_times(times: Any) -> dict[str, float]:
    average, least, most = times
    return {"avg_duration_ms": _ms(average), "min_duration_ms": _ms(least), "max_duration_ms": _ms(most)}


def _ms(value: float | None) -> float:
    """Round to two decimals; 0 for None."""
    return round(value or 0.0, 2)
