"""The documents there are: lists, one with its versions, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.documents.models import Document, DocumentVersion
from app.jobs import control, view
from app.jobs.models import JobRow
from app.jobs.states import OPEN
from app.search.index import drop_document

VERSIONS_SHOWN = 50
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Which documents to list; None means all. `before_id` is the last id of the page before."""

    domain: str | None = None
    language: str | None = None
    country: str | None = None
    source: str | None = None
    url: str | None = None
    external_id: str | None = None
    indexed: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before_id: int | None = None


def list_documents(session: Session, tenant: str, wanted: DocumentFilter, limit: int) -> list[Document]:
    """The newest first, at most `limit`."""
    equal = {name: getattr(wanted, name) for name in ("domain", "language", "country", "source", "url", "external_id")}
    conditions = [getattr(Document, name) == value for name, value in equal.items() if value is not None]
    if wanted.created_after is not None:
        conditions.append(Document.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(Document.created_at < wanted.created_before)
    if wanted.before_id is not None:
        conditions.append(Document.id < wanted.before_id)
    query = sa.select(Document).where(Document.tenant == tenant, *conditions)
    if wanted.indexed is not None:
        query = query.where(Document.version_id.is_not(None) if wanted.indexed else Document.version_id.is_(None))
    return list(session.scalars(query.order_by(Document.id.desc()).limit(limit)))


def stored_bytes(session: Session, tenant: str) -> int:
    """What was received and is kept, of all versions of all documents."""
    total = sa.select(sa.func.sum(DocumentVersion.size_bytes)).where(DocumentVersion.tenant == tenant)
    return int(session.scalar(total) or 0)


def count(session: Session, tenant: str) -> int:
    """All documents, also those that are not indexed yet."""
    return session.scalar(sa.select(sa.func.count()).where(Document.tenant == tenant)) or 0


def document_view(document: Document) -> dict[str, Any]:
    """A document in lists. `content_id` names the content that is searched; None until there is any."""
    return {
        "id": str(document.id),
        "external_id": document.external_id,
        "url": document.url,
        "canonical_url": document.canonical_url,
        "domain": document.domain,
        "title": document.title,
        "description": document.description,
        "language": document.language,
        "country": document.country,
        "is_mobile": document.is_mobile,
        "tags": document.tags or [],
        "metadata": document.meta or {},
        "source": document.source,
        "content_id": None if document.version_id is None else str(document.version_id),
        "chunks": document.chunk_count,
        "fetched_at": view.moment(document.fetched_at),
        "indexed_at": view.moment(document.indexed_at),
        "created_at": view.moment(document.created_at),
        "updated_at": view.moment(document.updated_at),
    }


def get(session: Session, tenant: str, document_id: str, *, lock: bool = False) -> Document:
    """Raises NotFound, also for another tenant's and for what is no id."""
    number = int(document_id) if document_id.isascii() and document_id.isdecimal() and len(document_id) < 20 else 0
    query = sa.select(Document).where(Document.tenant == tenant, Document.id == min(number, LARGEST_ID))
    document = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if document is None:
        raise NotFound(f"Document {document_id} not found", code="document_not_found")
    return document


def document_detail(session: Session, tenant: str, document_id: str) -> dict[str, Any]:
    """A document alone: with its text, its latest versions and the last job about it."""
    document = get(session, tenant, document_id)
    current = session.get(DocumentVersion, document.version_id) if document.version_id is not None else None
    columns = ("id", "state", "format", "content_hash", "status_code", "fetched_at", "indexed_at", "created_at")
    query = sa.select(*(getattr(DocumentVersion, name) for name in columns))
    query = query.where(DocumentVersion.document_id == document.id).order_by(DocumentVersion.id.desc())
    versions = session.execute(query.limit(VERSIONS_SHOWN)).mappings()
    try:
        job = view.job_view(view.latest_of_document(session, tenant, document.id))
    except NotFound:
        job = None
    return document_view(document) | {
        "text": current.text if current else None,
        "versions": [_version_view(row) for row in versions],
        "last_job": job,
    }


def delete(session: Session, tenant: str, document_id: str) -> None:
    """Stop its jobs and forget the document with all its versions; searches do not find it from the commit on."""
    document = get(session, tenant, document_id)
    jobs = sa.select(JobRow.id).where(
        JobRow.tenant == tenant, JobRow.document_id == document.id, JobRow.state.in_(OPEN)
    )
    for job_id in session.scalars(jobs.order_by(JobRow.id)).all():
        control.cancel(session, tenant, job_id)
    document = get(session, tenant, document_id, lock=True)
    session.execute(sa.delete(DocumentVersion).where(DocumentVersion.document_id == document.id))
    session.execute(sa.delete(Document).where(Document.id == document.id))
    drop_document(session, tenant=tenant, document_id=document.id)


def _version_view(row: Mapping[Any, Any]) -> dict[str, Any]:
    times = ("fetched_at", "indexed_at", "created_at")
    return {
        **row,
        "id": str(row["id"]),
        **{name: view.moment(row[name]) for name in times},
    }
