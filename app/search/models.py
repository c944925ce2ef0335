"""Tables of search: chunks, and the numbered changes that every engine follows."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Base, BigId, JsonColumn, UtcDateTime


class Chunk(Base):
    """A piece of a version's text with its packed terms, the version of the analyzer that made them, and its vector.

    `document_terms` are the terms of the whole document, on its first chunk: neighbours overlap, so sums would count
    twice.
    `text` is characters span_start to span_end of the version's text. `generation` names the model of the vector;
    vectors
    of two generations are never compared.
    """

    __tablename__ = "chunk"
    __table_args__ = (
        sa.Index("ix_chunk_document", "document_id", "ordinal"),
        sa.Index("ix_chunk_tenant", "tenant", "document_id"),
        sa.Index("ix_chunk_analyzer", "analyzer", "document_id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    document_id: Mapped[int] = mapped_column(BigId)
    version_id: Mapped[int] = mapped_column(BigId)
    generation: Mapped[str] = mapped_column(sa.String(200))
    ordinal: Mapped[int]
    text: Mapped[str] = mapped_column(sa.Text)
    span_start: Mapped[int]
    span_end: Mapped[int]
    page: Mapped[int | None]
    headings: Mapped[list[str]] = mapped_column(JsonColumn)
    language: Mapped[str | None] = mapped_column(sa.String(35))
    text_hash: Mapped[str] = mapped_column(sa.String(32))
    terms: Mapped[bytes] = mapped_column(sa.LargeBinary)
    document_terms: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    # By default 1, the analyzer of programs that do not write this column.
    analyzer: Mapped[int] = mapped_column(sa.SmallInteger, server_default="1")
    vector: Mapped[bytes | None] = mapped_column(sa.LargeBinary)


class ChunkVector(Base):
    """A chunk's vector of a generation other than the one in its row."""

    __tablename__ = "chunk_vector"

    chunk_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("chunk.id", ondelete="CASCADE"), primary_key=True)
    generation: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    vector: Mapped[bytes | None] = mapped_column(sa.LargeBinary)


def vector_of(generation: str) -> sa.ColumnElement[bytes | None]:
    """Return SQL for a chunk's vector of this generation, from its own row or chunk_vector; null if it has none."""
    beside = (
        sa.select(ChunkVector.vector)
        .where(ChunkVector.chunk_id == Chunk.id, ChunkVector.generation == generation)
        .correlate(Chunk)
        .scalar_subquery()
    )
    return sa.case((Chunk.generation == generation, Chunk.vector), else_=beside)


class IndexGeneration(Base):
    """The vectors of one model over all chunks; `after_chunk` is the progress of its build."""

    __tablename__ = "index_generation"

    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    dimension: Mapped[int]
    state: Mapped[str] = mapped_column(sa.String(16))
    after_chunk: Mapped[int] = mapped_column(BigId, default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IndexChange(Base):
    """One document was put or dropped. All numbers come from one counter, so changes commit in order."""

    __tablename__ = "change"
    __table_args__ = (sa.Index("ix_change_tenant", "tenant", "seq"), sa.Index("ix_change_at", "at"))

    seq: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    tenant: Mapped[str] = mapped_column(sa.String(64))
    document_id: Mapped[int] = mapped_column(BigId)
    op: Mapped[str] = mapped_column(sa.String(8))
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class ChangeCounter(Base):
    """The single row with the last number used, and the number up to which changes are pruned."""

    __tablename__ = "change_counter"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    pruned: Mapped[int] = mapped_column(sa.BigInteger, default=0)


# Columns that search reads of the documents room above it: rooms know each other's tables by column name.
document = sa.table(
    "document",
    sa.column("id", BigId),
    sa.column("tenant", sa.String),
    sa.column("url", sa.Text),
    sa.column("canonical_url", sa.Text),
    sa.column("domain", sa.String),
    sa.column("title", sa.Text),
    sa.column("description", sa.Text),
    sa.column("language", sa.String),
    sa.column("country", sa.String),
    sa.column("is_mobile", sa.Boolean),
    sa.column("tags", JsonColumn),
    sa.column("metadata", JsonColumn),
    sa.column("source", sa.String),
    sa.column("collection_id", BigId),
    sa.column("version_id", BigId),
    sa.column("fetched_at", UtcDateTime),
    sa.column("indexed_at", UtcDateTime),
)

document_version = sa.table("document_version", sa.column("id", BigId), sa.column("text", sa.Text))
