"""Write durations of work steps, in the transaction that stores the work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.sql import storable
from app.metrics.models import OperationMetric

# An insert into the table, not the class: the ORM's insert takes twice as long, and the end of a job waits for it.
_INSERT = sa.insert(cast(sa.Table, OperationMetric.__table__))


class OperationStep(NamedTuple):
    """A step of work and its duration; `error` is the reason of a failure."""

    type: str
    name: str
    duration_ms: float
    error: str | None = None


def write(
    session: Session,
    steps: Sequence[OperationStep],
    *,
    tenant: str,
    at: datetime,
    request_id: str | None = None,
    job_id: str | None = None,
    crawl_id: str | None = None,
    document_url: str | None = None,
) -> None:
    """Insert one row for each step."""
    shared = {
        "tenant": tenant,
        "at": at,
        "request_id": request_id,
        "job_id": job_id,
        "crawl_id": crawl_id,
        "document_url": storable(document_url),
    }
    rows = [
        {
            "operation_type": step.type,
            "operation_name": step.name,
            "duration_ms": step.duration_ms,
            "success": step.error is None,
            "error_message": storable(step.error),
            **shared,
        }
        for step in steps
    ]
    if rows:
        session.execute(_INSERT, rows)
