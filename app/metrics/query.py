"""Metrics read: rows with their sums, and one look at everything; of a time that ends now."""

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
    """Of this tenant, None is all; `keyless` adds the requests that came without a key."""

    tenant: str | None
    keyless: bool = False

    def of(self, column: Any) -> list[Condition]:
        if self.tenant is None:
            return []
        if self.keyless:
            # Not "this or none": so said, SQLite sorts a whole day's rows to show the newest hundred.
            return [sa.func.coalesce(column, self.tenant) == self.tenant]
        return [column == self.tenant]


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """What is None is not asked for. `path` is an address, or the pattern of a route."""

    hours: int
    path: str | None = None
    method: str | None = None
    min_duration_ms: float | None = None

    def conditions(self, whose: TenantScope) -> list[Condition]:
        row = RequestMetric
        wanted = [*whose.of(row.tenant), row.at >= _since(self.hours)]
        if self.path is not None:
            wanted.append(sa.or_(row.path == self.path, row.route == self.path))
        if self.method is not None:
            wanted.append(row.method == self.method.upper())
        if self.min_duration_ms is not None:
            wanted.append(row.duration_ms >= self.min_duration_ms)
        return wanted


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """What is None is not asked for."""

    hours: int
    operation_type: str | None = None
    operation_name: str | None = None
    document_url: str | None = None
    success: bool | None = None
    min_duration_ms: float | None = None

    def conditions(self, whose: TenantScope) -> list[Condition]:
        row = OperationMetric
        wanted = [*whose.of(row.tenant), row.at >= _since(self.hours)]
        for column in (row.operation_type, row.operation_name, row.document_url, row.success):
            value = getattr(self, column.key)
            if value is not None:
                wanted.append(column == value)
        if self.min_duration_ms is not None:
            wanted.append(row.duration_ms >= self.min_duration_ms)
        return wanted


def requests(
    session: Session, whose: TenantScope, wanted: RequestFilter, limit: int, offset: int
) -> tuple[list[RequestMetric], dict[str, Any]]:
    """The newest first, and the sums of all that are wanted."""
    conditions, row = wanted.conditions(whose), RequestMetric
    query = sa.select(row).where(*conditions).order_by(row.at.desc(), row.id.desc()).limit(limit).offset(offset)
    total, *times = session.execute(sa.select(sa.func.count(), *_times(row.duration_ms)).where(*conditions)).one()
    return list(session.scalars(query)), {**_named(times), "total_requests": total}


def operations(
    session: Session, whose: TenantScope, wanted: OperationFilter, limit: int, offset: int
) -> tuple[list[OperationMetric], dict[str, dict[str, Any]]]:
    """The newest first, and the sums of all that are wanted, by type."""
    conditions, row = wanted.conditions(whose), OperationMetric
    query = sa.select(row).where(*conditions).order_by(row.at.desc(), row.id.desc()).limit(limit).offset(offset)
    done = sa.func.count().filter(row.success)
    sums = sa.select(row.operation_type, sa.func.count(), done, *_times(row.duration_ms)).where(*conditions)
    by_type = {
        name: {
            **_named(times),
            "total_operations": total,
            "successful_operations": good,
            "failed_operations": total - good,
            "success_rate": round(100 * good / total, 2),
        }
        for name, total, good, *times in session.execute(sums.group_by(row.operation_type).order_by(row.operation_type))
    }
    return list(session.scalars(query)), by_type


def summary(session: Session, whose: TenantScope, hours: int) -> dict[str, Any]:
    """Everything at a look: requests, operations by type, and the routes that took longest on average."""
    asked, done = RequestFilter(hours).conditions(whose), OperationFilter(hours).conditions(whose)
    row, step = RequestMetric, OperationMetric
    mean, count = sa.func.avg(row.duration_ms), sa.func.count()
    faults = count.filter(row.status_code >= FIRST_ERROR)
    total, average, errors = session.execute(sa.select(count, mean, faults).where(*asked)).one()
    failed = count.filter(~step.success)
    types = sa.select(step.operation_type, count, sa.func.avg(step.duration_ms), failed).where(*done)
    routes = sa.select(row.route, mean, count).where(*asked).group_by(row.route)
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


def _named(times: Any) -> dict[str, float]:
    average, least, most = times
    return {"avg_duration_ms": _ms(average), "min_duration_ms": _ms(least), "max_duration_ms": _ms(most)}


def _ms(value: float | None) -> float:
    """0 where there is nothing to measure."""
    return round(value or 0.0, 2)
