"""Tables of metrics: durations of requests, and of the steps of work behind them."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, BigId, UtcDateTime
from app.jobs.models import JobId


class RequestMetric(Base):
    """One request. `path` is the requested path, `route` the pattern that matched it.

    tenant: None for a request without a valid key, such as a webhook. status_code: 0 if the caller disconnected before
    the response began.
    """

    __tablename__ = "request_metric"
    __table_args__ = (
        sa.Index("ix_request_metric_tenant", "tenant", "at"),
        sa.Index("ix_request_metric_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str | None] = mapped_column(sa.String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    method: Mapped[str] = mapped_column(sa.String(16))
    path: Mapped[str] = mapped_column(sa.String(500))
    route: Mapped[str] = mapped_column(sa.String(200))
    status_code: Mapped[int]
    duration_ms: Mapped[float] = mapped_column(sa.Double)
    request_id: Mapped[str] = mapped_column(sa.String(128))
    client_ip: Mapped[str | None] = mapped_column(sa.String(64))


class OperationMetric(Base):
    """One step of work. Types are the old service's, such as `embedding` / `embed_batch`, or ours."""

    __tablename__ = "operation_metric"
    __table_args__ = (
        sa.Index("ix_operation_metric_tenant", "tenant", "at"),
        sa.Index("ix_operation_metric_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    operation_type: Mapped[str] = mapped_column(sa.String(50))
    operation_name: Mapped[str] = mapped_column(sa.String(100))
    duration_ms: Mapped[float] = mapped_column(sa.Double)
    success: Mapped[bool]
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    request_id: Mapped[str | None] = mapped_column(sa.String(128))
    # No foreign key: a job may be deleted before the metrics of its work.
    job_id: Mapped[str | None] = mapped_column(JobId)
    crawl_id: Mapped[str | None] = mapped_column(sa.String(255))
    document_url: Mapped[str | None] = mapped_column(sa.Text)
