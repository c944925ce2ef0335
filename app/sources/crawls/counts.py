"""Count the pages of crawls by SQL; the number of statements does not depend on the number of crawls."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import sql
from app.core.ids import is_uuid
from app.documents.jobs import IngestDocument
from app.documents.models import DocumentVersion
from app.jobs.models import JobRow
from app.jobs.schedules.store import DEFAULT_TENANT
from app.jobs.states import OPEN
from app.sources.models import CrawlPage, Delivery

STAGES = ("chunk", "embed", "index")


@dataclass(slots=True)
class PageCounts:
    """Page counts of one crawl; `spent_ms` is the total time by stage."""

    pages: int
    indexed: int
    failed: int
    spent_ms: dict[str, float]


def count_pages(session: Session, tenant: str, crawl_ids: Collection[str]) -> dict[str, PageCounts]:
    """Return the counts by crawl id; zeros for a crawl without pages."""
    counts = {crawl_id: PageCounts(0, 0, 0, dict.fromkeys(STAGES, 0.0)) for crawl_id in crawl_ids}
    if not counts:
        return counts
    _count_versions(session, tenant, counts)
    _sum_times(session, tenant, counts)
    _count_failures(session, tenant, counts)
    return counts


def _count_versions(session: Session, tenant: str, counts: dict[str, PageCounts]) -> None:
    received = DocumentVersion.state == "received"
    waits = sa.exists().where(*_job_conditions(tenant), JobRow.state.in_(OPEN))
    state = sa.case((~received, "indexed"), (waits, "waiting"), else_="failed")
    query = sa.select(DocumentVersion.crawl_session, state, sa.func.count()).where(*_version_conditions(tenant, counts))
    for crawl_id, page_state, count in session.execute(query.group_by(DocumentVersion.crawl_session, state)):
        crawl = counts[crawl_id]
        crawl.pages += count
        crawl.indexed += count if page_state == "indexed" else 0
        crawl.failed += count if page_state == "failed" else 0


def _sum_times(session: Session, tenant: str, counts: dict[str, PageCounts]) -> None:
    spent = [sa.func.sum(JobRow.result["timings_ms"][name].as_float()) for name in STAGES]
    query = sa.select(DocumentVersion.crawl_session, *spent).join(JobRow, sa.and_(*_job_conditions(tenant)))
    query = query.where(*_version_conditions(tenant, counts)).group_by(DocumentVersion.crawl_session)
    for crawl_id, *sums in session.execute(query):
        counts[crawl_id].spent_ms = {
            name: round(spent_ms or 0.0, 2) for name, spent_ms in zip(STAGES, sums, strict=True)
        }


def _count_failures(session: Session, tenant: str, counts: dict[str, PageCounts]) -> None:
    """Add pages that could not be fetched or were refused: they have no document version."""
    length = sa.func.jsonb_array_length if sql.is_postgres(session) else sa.func.json_array_length
    reported = sa.select(Delivery.crawl_id, sa.func.sum(length(Delivery.failures))).where(
        *visible_deliveries(tenant), Delivery.crawl_id.in_(counts), Delivery.failures.is_not(None)
    )
    own = sa.select(CrawlPage.crawl_id, sa.func.count()).where(
        CrawlPage.crawl_id.in_([crawl_id for crawl_id in counts if is_uuid(crawl_id)]), CrawlPage.state == "failed"
    )
    for query in (reported.group_by(Delivery.crawl_id), own.group_by(CrawlPage.crawl_id)):
        for crawl_id, count in session.execute(query):
            counts[crawl_id].pages += int(count)
            counts[crawl_id].failed += int(count)


def visible_deliveries(tenant: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions on deliveries; events of any tenant's crawl are stored with the default tenant."""
    return (Delivery.tenant.in_({tenant, DEFAULT_TENANT}),)


def _version_conditions(tenant: str, counts: dict[str, PageCounts]) -> tuple[sa.ColumnElement[bool], ...]:
    return (DocumentVersion.tenant == tenant, DocumentVersion.crawl_session.in_(counts))


def _job_conditions(tenant: str) -> tuple[Any, ...]:
    return (
        JobRow.tenant == tenant,
        JobRow.document_id == DocumentVersion.document_id,
        JobRow.kind == IngestDocument.kind,
        JobRow.payload["version_id"].as_integer() == DocumentVersion.id,
    )
