"""Answers about durations, in the shapes of the old service."""

from __future__ import annotations

from pydantic import Field

from app.api.models.base import Number, ResponseModel, Timestamp


class MeasuredRequest(ResponseModel):
    """One request and its duration."""

    id: Number
    timestamp: Timestamp
    method: str
    path: str
    status_code: int
    duration_ms: float
    request_id: str | None
    client_ip: str | None


class RequestTimingSums(ResponseModel):
    """Durations of all requests that match, not of one page."""

    avg_duration_ms: float
    min_duration_ms: float
    max_duration_ms: float
    total_requests: int


class RequestTimings(ResponseModel):
    """Requests, the newest first."""

    metrics: list[MeasuredRequest]
    total: int
    limit: int
    offset: int
    summary: RequestTimingSums


class MeasuredOperation(ResponseModel):
    """One step of work and its duration."""

    id: Number
    timestamp: Timestamp
    operation_type: str
    operation_name: str
    duration_ms: float
    success: bool
    error_message: str | None
    request_id: str | None
    job_id: str | None
    document_url: str | None


class OperationTimingSums(ResponseModel):
    """Durations and outcomes of all steps of a type that match, not of one page."""

    avg_duration_ms: float
    min_duration_ms: float
    max_duration_ms: float
    total_operations: int
    successful_operations: int
    failed_operations: int
    success_rate: float = Field(..., description="In percent.")


class OperationTimings(ResponseModel):
    """Steps of work, the newest first."""

    metrics: list[MeasuredOperation]
    total: int
    limit: int
    offset: int
    summary_by_type: dict[str, OperationTimingSums]


class RequestTotals(ResponseModel):
    """Number, mean duration and errors of requests."""

    total: int
    avg_duration_ms: float
    error_count: int = Field(..., description="Answers with status 400 or more.")


class OperationTotals(ResponseModel):
    """Number, mean duration and errors of the steps of a type."""

    total_operations: int
    avg_duration_ms: float
    error_count: int


class EndpointTotals(ResponseModel):
    """Number and mean duration of the requests of a route."""

    path: str
    avg_duration_ms: float
    request_count: int


class TimingSummary(ResponseModel):
    """Requests, steps of work and the slowest routes of the last hours."""

    time_period_hours: int
    requests: RequestTotals
    operations_by_type: dict[str, OperationTotals]
    slowest_endpoints: list[EndpointTotals]
