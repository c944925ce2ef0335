"""Tables of documents: the current state of a document, and each content it received."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.db import Base, BigId, JsonColumn, UtcDateTime
from app.jobs.models import JobId

_CHILD = sa.text("parent_id IS NOT NULL")
_BLOB = sa.text("blob_key IS NOT NULL")
MAX_URL_BYTES = 2_048  # an index entry of PostgreSQL holds 2,704


class InstallationFact(Base):
    """A value that all processes of an installation share, such as the marker of their store of originals."""

    __tablename__ = "installation_fact"

    name: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    value: Mapped[str] = mapped_column(sa.Text)


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
    """A page, file or text with the fields of its current version; identified by URL, by the caller's key, or by id."""

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
    # The document that this one was attached to, such as an e-mail.
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
    # The version that is searched; None until the first one is indexed.
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
    """The blob of documents sent as one body; it is stored until its job ends."""

    __tablename__ = "document_batch"

    job_id: Mapped[str] = mapped_column(JobId, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    blob_key: Mapped[str] = mapped_column(sa.String(64), index=True)


class BatchLine(Base):
    """The outcome of one line of a batch, written in the transaction of its document, so each line has exactly one."""

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

    Content from another system is `adopted` until its import is complete: see app/documents/ingest/import_versions.py.

    `fields` holds title, tags and the like as they were sent; the document gets them when the version becomes current.
    `body` is the received content unless it is HTML; `text` is the clean Markdown that all offsets count in.
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
    # For a file: the blob of the original, its media type, its name, and the number of pages read.
    blob_key: Mapped[str | None] = mapped_column(sa.String(64))
    media_type: Mapped[str | None] = mapped_column(sa.String(127))
    file_name: Mapped[str | None] = mapped_column(sa.String(255))
    page_count: Mapped[int | None]
    # For an encrypted file, until it was read or the password proved wrong. No answer and no payload contains it.
    password: Mapped[str | None] = mapped_column(sa.String(255))
    # Size of the received content: body and html, or the file.
    size_bytes: Mapped[int] = mapped_column(BigId, default=0, server_default="0")
    language: Mapped[str | None] = mapped_column(sa.String(35))
    # Validators that the page's server sent, used to ask whether the content changed.
    etag: Mapped[str | None] = mapped_column(sa.String(255))
    last_modified: Mapped[str | None] = mapped_column(sa.String(255))
    fetched_at: Mapped[datetime] = mapped_column(UtcDateTime)
    indexed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
