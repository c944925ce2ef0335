"""Documents: lists, details with versions, and deletion."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.errors import NotFound
from app.documents.models import Document, DocumentVersion
from app.jobs.ledger import commands, views
from app.jobs.models import JobRow
from app.jobs.states import OPEN
from app.search.index.write import drop_document, touch_document

VERSIONS_SHOWN = 50
MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Conditions of a list of documents; None matches all. `before_id` is the last id of the previous page."""

    domain: str | None = None
    language: str | None = None
    country: str | None = None
    source: str | None = None
    url: str | None = None
    external_id: str | None = None
    indexed: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    tags: Sequence[str] = ()
    collection_ids: Collection[int] | None = None
    before_id: int | None = None


def list_documents(session: Session, tenant: str, filter_: DocumentFilter, limit: int) -> list[Document]:
    """List at most `limit` documents, newest first."""
    query = sa.select(Document).where(*conditions(session, tenant, filter_))
    return list(session.scalars(query.order_by(Document.id.desc()).limit(limit)))


def conditions(session: Session, tenant: str, filter_: DocumentFilter) -> list[sa.ColumnElement[bool]]:
    """Return the SQL conditions, all of which a document must meet."""
    equal = {name: getattr(filter_, name) for name in ("domain", "language", "country", "source", "url", "external_id")}
    result = [Document.tenant == tenant]
    result += [getattr(Document, name) == value for name, value in equal.items() if value is not None]
    if filter_.created_after is not None:
        result.append(Document.created_at >= filter_.created_after)
    if filter_.created_before is not None:
        result.append(Document.created_at < filter_.created_before)
    if filter_.before_id is not None:
        result.append(Document.id < filter_.before_id)
    if filter_.collection_ids is not None:
        result.append(Document.collection_id.in_(filter_.collection_ids))
    if filter_.indexed is not None:
        result.append(Document.version_id.is_not(None) if filter_.indexed else Document.version_id.is_(None))
    return [*result, *(_has_tag(session, tag) for tag in filter_.tags)]


def _has_tag(session: Session, tag: str) -> sa.ColumnElement[bool]:
    """Return a condition: the JSON list of tags contains this tag."""
    if sql.is_postgres(session):
        return sa.cast(Document.tags, JSONB).contains([tag])
    each = sa.func.json_each(Document.tags).table_valued("value")
    return sa.exists(sa.select(1).select_from(each).where(each.c.value == tag))


def names(session: Session, tenant: str, document_ids: Collection[int]) -> dict[int | None, str]:
    """Return a name for each document that has one: its title, the name of its last file, or its URL."""
    if not document_ids:
        return {}
    file_name = (
        sa.select(DocumentVersion.file_name)
        .where(DocumentVersion.document_id == Document.id)
        .order_by(DocumentVersion.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(Document.id, Document.title, file_name, Document.url)
    rows = session.execute(query.where(Document.tenant == tenant, Document.id.in_(set(document_ids))))
    return {row[0]: name for row in rows if (name := row[1] or row[2] or row[3])}


def stored_bytes(session: Session, tenant: str) -> int:
    """Return the size of everything received, over all versions of all documents."""
    total = sa.select(sa.func.sum(DocumentVersion.size_bytes)).where(DocumentVersion.tenant == tenant)
    return int(session.scalar(total) or 0)


def count(session: Session, tenant: str) -> int:
    """Count all documents, also those not indexed yet."""
    return session.scalar(sa.select(sa.func.count()).where(Document.tenant == tenant)) or 0


def document_view(document: Document) -> dict[str, Any]:
    """Return a document as lists show it. `content_id` is the searched version; None until one is indexed."""
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
        "no_text": _reason(document),
        "source": document.source,
        "collection": document.collection.name if document.collection else None,
        "content_id": None if document.version_id is None else str(document.version_id),
        "chunks": document.chunk_count,
        "fetched_at": clock.moment(document.fetched_at),
        "indexed_at": clock.moment(document.indexed_at),
        "created_at": clock.moment(document.created_at),
        "updated_at": clock.moment(document.updated_at),
    }


def _reason(document: Document) -> str | None:
    """Return the reason why a file has no text."""
    reason = (document.meta or {}).get("no_text")
    return reason if isinstance(reason, str) and document.version_id is not None else None


def get(
    session: Session, tenant: str, document_id: str, *, lock: bool = False, reach: Collection[int] | None = None
) -> Document:
    """Raises NotFound for an unknown or invalid id, another tenant's document, or one outside the collections in
    `reach`."""
    number = int(document_id) if document_id.isascii() and document_id.isdecimal() and len(document_id) < 20 else 0
    query = sa.select(Document).where(Document.tenant == tenant, Document.id == min(number, MAX_ID))
    document = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if document is None or (reach is not None and document.collection_id not in reach):
        raise NotFound(f"Document {document_id} not found", code="document_not_found")
    return document


def document_detail(
    session: Session, tenant: str, document_id: str, reach: Collection[int] | None = None
) -> dict[str, Any]:
    """Return one document with its text, its latest versions and its last job."""
    document = get(session, tenant, document_id, reach=reach)
    current = session.get(DocumentVersion, document.version_id) if document.version_id is not None else None
    columns = (
        "id", "state", "format", "content_hash", "status_code", "media_type", "file_name", "size_bytes", "page_count",
        "fetched_at", "indexed_at", "created_at",
    )  # fmt: skip
    query = sa.select(*(getattr(DocumentVersion, name) for name in columns))
    query = query.where(DocumentVersion.document_id == document.id).order_by(DocumentVersion.id.desc())
    versions = session.execute(query.limit(VERSIONS_SHOWN)).mappings().all()
    children = sa.select(Document.id).where(Document.parent_id == document.id).order_by(Document.id)
    try:
        job = views.job_view(views.latest_of_document(session, tenant, document.id))
    except NotFound:
        job = None
    return document_view(document) | {
        "state": _state(versions[0]["state"] if versions else None, job),
        "pages": current.page_count if current else None,
        "parent_id": None if document.parent_id is None else str(document.parent_id),
        "attachments": [str(child) for child in session.scalars(children.limit(VERSIONS_SHOWN))],
        "text": current.text if current else None,
        "versions": [_version_view(row) for row in versions],
        "last_job": job,
    }


# State of the newest content by the stage of its job.
_REACHED = {"extract": "received", "chunk": "extracted", "embed": "chunked", "index": "embedded"}


def _state(version: str | None, job: dict[str, Any] | None) -> str:
    """Return received, extracted, chunked, embedded, indexed or failed. `last_job` has the counts of the stage, or the
    reason."""
    if version != "received":
        return "indexed"
    if job is None or job["state"] in ("failed", "cancelled"):
        return "failed"
    return _REACHED.get(str(job["progress"]["stage"]), "received")


def move(session: Session, document: Document, collection_id: int | None) -> None:
    """Put the document into this collection, or into none; searches see the change from the commit on."""
    if document.collection_id != collection_id:
        document.collection_id, document.updated_at = collection_id, clock.now()
        if document.version_id is not None:
            touch_document(session, tenant=document.tenant, document_id=document.id)


def delete(session: Session, tenant: str, document_id: str, reach: Collection[int] | None = None) -> None:
    """Cancel its jobs and delete the document with all versions; searches no longer find it from the commit on."""
    document = get(session, tenant, document_id, reach=reach)
    jobs = sa.select(JobRow.id).where(
        JobRow.tenant == tenant, JobRow.document_id == document.id, JobRow.state.in_(OPEN)
    )
    for job_id in session.scalars(jobs.order_by(JobRow.id)).all():
        commands.cancel(session, tenant, job_id)
    document = get(session, tenant, document_id, lock=True)
    for child in session.scalars(sa.select(Document.id).where(Document.parent_id == document.id)).all():
        delete(session, tenant, str(child))  # its attachments
    session.execute(sa.delete(DocumentVersion).where(DocumentVersion.document_id == document.id))
    session.execute(sa.delete(Document).where(Document.id == document.id))
    drop_document(session, tenant=tenant, document_id=document.id)


def _version_view(row: Mapping[Any, Any]) -> dict[str, Any]:
    times = ("fetched_at", "indexed_at", "created_at")
    return {
        **row,
        "id": str(row["id"]),
        **{name: clock.moment(row[name]) for name in times},
    }
