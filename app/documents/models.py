"""Tables of documents: what a document is now, and each content it was given."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.db import Base, BigId, JsonColumn, UtcDateTime
from app.jobs.models import JobId

_CHILD = sa.text("parent_id IS NOT NULL")
_BLOB = sa.text("blob_key IS NOT NULL")
LONGEST_URL = 2_048  # bytes; an index entry of PostgreSQL holds 2,704


class Collection(Base):
    """A named set of documents: a case, a project, a site."""

    __tablename__ = "collection"
    __table_args__ = (sa.UniqueConstraint("tenant", "name"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    name: Mapped[str] = mapped_column(sa.String(100))
    title: Mapped[str] = mapped_column(sa.String(200), default="")
    description: Mapped[str] = mapped_column(sa.Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Document(Base):
    """A page, file or text, as its current version says; found by url, by a key of the caller's, or by id alone."""

    __tablename__ = "document"
    __table_args__ = (
        sa.UniqueConstraint("tenant", "canonical_url"),
        sa.UniqueConstraint("tenant", "external_id"),
        sa.Index("ix_document_tenant", "tenant", "id"),
        sa.Index("ix_document_domain", "tenant", "domain"),
        sa.Index("ix_document_collection", "tenant", "collection_id", "id"),
        sa.Index("ix_document_parent", "parent_id", sqlite_where=_CHILD, postgresql_where=_CHILD),
        {"sqlite_autoincrement": True},  # an id is never given out twice: jobs and callers remember it
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    collection_id: Mapped[int | None] = mapped_column(BigId)
    # The document that this one came inside of: an e-mail of its attachment.
    parent_id: Mapped[int | None] = mapped_column(BigId)
    external_id: Mapped[str | None] = mapped_column(sa.String(512))
    url: Mapped[str | None] = mapped_column(sa.Text)
    canonical_url: Mapped[str | None] = mapped_column(sa.Text)
    domain: Mapped[str | None] = mapped_column(sa.String(300))
    title: Mapped[str | None] = mapped_column(sa.Text)
    description: Mapped[str | None] = mapped_column(sa.Text)
    language: Mapped[str | None] = mapped_column(sa.String(35))
    country: Mapped[str | None] = mapped_column(sa.String(64))
    is_mobile: Mapped[bool] = mapped_column(default=False)
    tags: Mapped[list[str]] = mapped_column(JsonColumn, default=list)
    meta: Mapped[dict[str, Any]] = mapped_column("metadata", JsonColumn, default=dict)
    source: Mapped[str] = mapped_column(sa.String(64), default="api")
    # The version that is searched; None until the first is indexed.
    version_id: Mapped[int | None] = mapped_column(BigId)
    chunk_count: Mapped[int] = mapped_column(default=0)
    fetched_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    indexed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    collection: Mapped[Collection | None] = relationship(
        primaryjoin="foreign(Document.collection_id) == Collection.id", viewonly=True
    )


class Batch(Base):
    """Many documents that came as one body: where it lies until its job has ended."""

    __tablename__ = "document_batch"

    job_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    blob_key: Mapped[str] = mapped_column(sa.String(64), index=True)


class BatchLine(Base):
    """What became of one line of a batch: written with the document itself, so it is never said twice."""

    __tablename__ = "document_batch_line"

    job_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(sa.String(16))
    document_id: Mapped[int | None] = mapped_column(BigId)
    version_id: Mapped[int | None] = mapped_column(BigId)
    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(sa.Text)


class DocumentVersion(Base):
    """One content of a document: received, then current while it is searched, then superseded.

    What comes from another system is `adopted` until all of it is here: see app/documents/ingest/import_versions.py.

    `fields` are title, tags and the like as they came with it; they become the document's when it becomes current.
    `body` is what was received where that is no HTML; `text` is the clean Markdown that all offsets count in.
    """

    __tablename__ = "document_version"
    __table_args__ = (
        sa.Index("ix_document_version_document", "document_id", "id"),
        sa.Index("ix_document_version_session", "tenant", "crawl_session", "id"),
        sa.Index("ix_document_version_blob", "blob_key", sqlite_where=_BLOB, postgresql_where=_BLOB),
        sa.Index("ix_document_version_size", "tenant", "size_bytes"),  # a tenant's bytes, from the index alone
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    document_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("document.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(sa.String(16), default="received")
    format: Mapped[str] = mapped_column(sa.String(16))
    content_hash: Mapped[str] = mapped_column(sa.String(64))
    url: Mapped[str | None] = mapped_column(sa.Text)
    resolved_url: Mapped[str | None] = mapped_column(sa.Text)
    status_code: Mapped[int | None]
    crawl_session: Mapped[str | None] = mapped_column(sa.String(255))
    fields: Mapped[dict[str, Any]] = mapped_column(JsonColumn, default=dict)
    body: Mapped[str | None] = mapped_column(sa.Text)
    html: Mapped[str | None] = mapped_column(sa.Text)
    text: Mapped[str | None] = mapped_column(sa.Text)
    # Of a file: the original in the store of blobs, what it is, how it was called, and how many pages were read.
    blob_key: Mapped[str | None] = mapped_column(sa.String(64))
    media_type: Mapped[str | None] = mapped_column(sa.String(127))
    file_name: Mapped[str | None] = mapped_column(sa.String(255))
    page_count: Mapped[int | None]
    # Of a locked file, until it has been read or turned out to be wrong. No answer shows it, and no payload holds it.
    password: Mapped[str | None] = mapped_column(sa.String(255))
    # What was received: body and html, or the file.
    size_bytes: Mapped[int] = mapped_column(BigId, default=0, server_default="0")
    language: Mapped[str | None] = mapped_column(sa.String(35))
    # What the page's server called this content, to be asked whether it is still so.
    etag: Mapped[str | None] = mapped_column(sa.String(255))
    last_modified: Mapped[str | None] = mapped_column(sa.String(255))
    fetched_at: Mapped[datetime] = mapped_column(UtcDateTime)
    indexed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
