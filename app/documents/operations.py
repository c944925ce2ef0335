"""Metrics of indexing jobs, written when they end."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.documents.models import DocumentVersion
from app.jobs.models import JobRow
from app.metrics import operations
from app.metrics.operations import OperationStep

# Stage of a job → type and name of its step; names of the old service where it had the step.
NAMES = {
    "fetch": ("fetching", "fetch_page"),
    "store": ("content_storage", "store_batch"),
    "extract": ("extraction", "extract_text"),
    "chunk": ("chunking", "chunk_text"),
    "embed": ("embedding", "embed_batch"),
    "index": ("qdrant", "index_chunks"),
}
WHOLE = ("indexing", "index_document")
_PAGE = sa.select(DocumentVersion.url, DocumentVersion.crawl_session).where(
    DocumentVersion.id == sa.bindparam("id"), DocumentVersion.tenant == sa.bindparam("tenant")
)


def note_end(session: Session, row: JobRow) -> None:
    """Record each step with its duration, or the failed step; nothing for a cancelled job. An `on_end` function."""
    steps = _steps(row)
    if not steps:
        return
    url, crawl_id = _page(session, row)
    operations.write(
        session,
        steps,
        tenant=row.tenant,
        at=row.finished_at or clock.now(),
        request_id=row.request_id,
        job_id=row.id,
        crawl_id=crawl_id,
        document_url=url,
    )


def _steps(row: JobRow) -> list[OperationStep]:
    if row.state == "failed":
        stage = (row.progress or {}).get("stage")
        spent = row.finished_at - row.started_at if row.finished_at and row.started_at else None
        duration_ms = round(1000 * spent.total_seconds(), 2) if spent else 0.0
        return [
            OperationStep(*NAMES.get(stage or "", WHOLE), duration_ms, row.error_message or row.error_type or "failed")
        ]
    timings: dict[str, float] = (row.result or {}).get("timings_ms", {})
    return [OperationStep(*NAMES[stage], spent) for stage, spent in timings.items() if stage in NAMES]


def _page(session: Session, row: JobRow) -> tuple[str | None, str | None]:
    """Return URL and crawl of the indexed page; for a page that could not be fetched, the URL in its payload."""
    version_id: Any = (row.result or {}).get("version_id") or row.payload.get("version_id")
    page = version_id and session.execute(_PAGE, {"id": int(version_id), "tenant": row.tenant}).one_or_none()
    return (page.url, page.crawl_session) if page else (row.payload.get("url"), None)
