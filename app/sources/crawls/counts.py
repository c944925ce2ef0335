"""The pages of many crawls in numbers, counted by SQL: as many statements for a list of crawls as for one."""

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
    """Of one crawl; `spent_ms` by stage."""

    pages: int
    indexed: int
    failed: int
    spent_ms: dict[str, float]


def count_pages(session: Session, tenant: str, crawl_ids: Collection[str]) -> dict[str, PageCounts]:
    """By crawl; one without a page has zeros."""
    found = {crawl_id: PageCounts(0, 0, 0, dict.fromkeys(STAGES, 0.0)) for crawl_id in crawl_ids}
    if not found:
        return found
    _versions(session, tenant, found)
    _times(session, tenant, found)
    _failures(session, tenant, found)
    return found


def _versions(session: Session, tenant: str, found: dict[str, PageCounts]) -> None:
    received = DocumentVersion.state == "received"
    waits = sa.exists().where(*_its_jobs(tenant), JobRow.state.in_(OPEN))
    state = sa.case((~received, "indexed"), (waits, "waiting"), else_="failed")
    query = sa.select(DocumentVersion.crawl_session, state, sa.func.count()).where(*_of(tenant, found))
    for crawl_id, became, count in session.execute(query.group_by(DocumentVersion.crawl_session, state)):
        numbers = found[crawl_id]
        numbers.pages += count
        numbers.indexed += count if became == "indexed" else 0
        numbers.failed += count if became == "failed" else 0


def _times(session: Session, tenant: str, found: dict[str, PageCounts]) -> None:
    spent = [sa.func.sum(JobRow.result["timings_ms"][name].as_float()) for name in STAGES]
    query = sa.select(DocumentVersion.crawl_session, *spent).join(JobRow, sa.and_(*_its_jobs(tenant)))
    query = query.where(*_of(tenant, found)).group_by(DocumentVersion.crawl_session)
    for crawl_id, *sums in session.execute(query):
        found[crawl_id].spent_ms = {
            name: round(spent_ms or 0.0, 2) for name, spent_ms in zip(STAGES, sums, strict=True)
        }


def _failures(session: Session, tenant: str, found: dict[str, PageCounts]) -> None:
    """Pages that the sender could not have, or that could not be fetched or taken: they have no version."""
    length = sa.func.jsonb_array_length if sql.is_postgres(session) else sa.func.json_array_length
    told = sa.select(Delivery.crawl_id, sa.func.sum(length(Delivery.failures))).where(
        *visible_deliveries(tenant), Delivery.crawl_id.in_(found), Delivery.failures.is_not(None)
    )
    own = sa.select(CrawlPage.crawl_id, sa.func.count()).where(
        CrawlPage.crawl_id.in_([crawl_id for crawl_id in found if is_uuid(crawl_id)]), CrawlPage.state == "failed"
    )
    for query in (told.group_by(Delivery.crawl_id), own.group_by(CrawlPage.crawl_id)):
        for crawl_id, count in session.execute(query):
            found[crawl_id].pages += int(count)
            found[crawl_id].failed += int(count)


def visible_deliveries(tenant: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Events are the first tenant's, also where they tell of another's crawl."""
    return (Delivery.tenant.in_({tenant, DEFAULT_TENANT}),)


def _of(tenant: str, found: dict[str, PageCounts]) -> tuple[sa.ColumnElement[bool], ...]:
    return (DocumentVersion.tenant == tenant, DocumentVersion.crawl_session.in_(found))


def _its_jobs(tenant: str) -> tuple[Any, ...]:
    return (
        JobRow.tenant == tenant,
        JobRow.document_id == DocumentVersion.document_id,
        JobRow.kind == IngestDocument.kind,
        JobRow.payload["version_id"].as_integer() == DocumentVersion.id,
    )
