"""SQL that engines read: documents in their current state, and the documents changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.search.engines.base import Lag
from app.search.models import ChangeCounter, Chunk, IndexChange, document, vector_of
from app.search.text.analyzer import ANALYZER_VERSION

ROWS_AT_ONCE = 2_000

_FIELDS = ("tenant", "domain", "language", "country", "is_mobile", "source", "tags", "fetched_at", "collection_id")


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk with its terms; `vector` is None if the stored one belongs to another generation."""

    id: int
    terms: bytes
    vector: bytes | None
    language: str | None


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """A document with its fields, chunks and the `terms` of its whole text."""

    id: int
    chunks: Sequence[IndexedChunk]
    terms: bytes
    tenant: str = ""
    domain: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool = False
    source: str | None = None
    tags: Sequence[str] = ()
    fetched_at: datetime | None = None
    collection_id: int | None = None


def documents(
    session: Session,
    generation: str,
    *,
    tenant: str | None = None,
    ids: Sequence[int] | None = None,
) -> Iterator[IndexedDocument]:
    """Yield documents that have chunks, in id order: all, a tenant's, or these."""
    about = sa.select(document.c.id, *(document.c[name] for name in _FIELDS))
    pieces = sa.select(
        Chunk.document_id, Chunk.id, Chunk.terms, vector_of(generation), Chunk.language, Chunk.document_terms
    )
    if tenant is not None:
        about, pieces = about.where(document.c.tenant == tenant), pieces.where(Chunk.tenant == tenant)
    if ids is not None:
        about, pieces = about.where(document.c.id.in_(ids)), pieces.where(Chunk.document_id.in_(ids))
    fields: dict[int, dict[str, Any]] = {row["id"]: dict(row) for row in session.execute(about).mappings()}
    rows = session.execute(pieces.order_by(Chunk.document_id, Chunk.ordinal).execution_options(yield_per=ROWS_AT_ONCE))
    for document_id, group in groupby(rows, key=lambda row: row[0]):
        chunks, terms_of_all = [], None
        for _, chunk_id, terms, vector, language, document_terms in group:
            chunks.append(IndexedChunk(chunk_id, terms, vector, language))
            terms_of_all = terms_of_all or document_terms
        if document_id in fields:
            yield IndexedDocument(chunks=chunks, terms=terms_of_all or b"", **fields[document_id])


def counter(session: Session) -> tuple[int, int]:
    """Return the number of the last change, and of the last pruned one."""
    row = session.execute(sa.select(ChangeCounter.value, ChangeCounter.pruned)).one_or_none()
    return (0, 0) if row is None else (row.value, row.pruned)


def changed(
    session: Session, after: int, *, tenant: str | None = None, most: int | None = None
) -> tuple[list[int], int]:
    """Return the documents changed after that number, each once, and the number of the last of these changes."""
    query = (
        sa.select(IndexChange.seq, IndexChange.document_id)
        .where(IndexChange.seq > after)
        .order_by(IndexChange.seq)
        .limit(most)
    )
    if tenant is not None:
        query = query.where(IndexChange.tenant == tenant)
    rows = session.execute(query).all()
    return list(dict.fromkeys(row.document_id for row in rows)), rows[-1].seq if rows else after


def outdated() -> sa.ColumnElement[bool]:
    """Return SQL for chunks of another analyzer; two ranges, so that an index finds them."""
    return sa.or_(Chunk.analyzer < ANALYZER_VERSION, Chunk.analyzer > ANALYZER_VERSION)


def has_outdated(session: Session, tenant: str | None = None) -> bool:
    """Return True if a chunk, of this tenant or of any, has terms of another analyzer."""
    query = sa.select(Chunk.id).where(outdated())
    return session.scalar((query if tenant is None else query.where(Chunk.tenant == tenant)).limit(1)) is not None


def lag(session: Session, at: int) -> Lag:
    """Return the lag of an engine that has read up to change `at`."""
    value, _ = counter(session)
    first = session.scalar(sa.select(IndexChange.at).where(IndexChange.seq > at).order_by(IndexChange.seq).limit(1))
    seconds = max(0.0, (clock.now() - first).total_seconds()) if first is not None else 0.0
    return Lag(max(0, value - at), seconds)
