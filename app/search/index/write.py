"""Write side of search: replace or drop a document's chunks in one transaction that ends with a numbered change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.settings import get_settings
from app.jobs.ledger.enqueue import enqueue
from app.jobs.schedules.store import DEFAULT_TENANT
from app.search.embedders import Vectors
from app.search.jobs import FollowIndex
from app.search.models import ChangeCounter, Chunk, ChunkVector, IndexChange, vector_of
from app.search.text.analyzer import ANALYZER_VERSION, packed_terms, primary

COUNTER = 1
ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk to index. `context` is the title and the headings above it: searched with the chunk, but not shown."""

    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    context: str = ""
    page: int | None = None

    @classmethod
    def within(
        cls, text: str, start: int, end: int, headings: tuple[str, ...], title: str | None, page: int | None = None
    ) -> NewChunk:
        """Return a chunk with its context; a heading in its text, or equal to the title, is not repeated."""
        above = [name for name in headings if name != title and name not in text[: len(name) + 8]]
        return cls(text, start, end, headings, "\n".join([title, *above] if title else above), page)

    @property
    def searched(self) -> str:
        """Return the text that is analysed and embedded."""
        return f"{self.context}\n{self.text}" if self.context else self.text

    @property
    def text_hash(self) -> str:
        """Return the hash of the searched text; equal hashes mean equal vectors."""
        return hashlib.blake2b(self.searched.encode(), digest_size=16).hexdigest()


def load_vectors(session: Session, document_ids: Sequence[int], generation: str) -> dict[str, bytes]:
    """Return the current vectors of the documents' chunks by text hash."""
    query = sa.select(Chunk.text_hash, vector_of(generation)).where(Chunk.document_id.in_(document_ids))
    return {text_hash: vector for text_hash, vector in session.execute(query) if vector is not None}


def pack_vectors(vectors: Vectors) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(vectors, "<f4")]


def pack_terms(chunks: Sequence[NewChunk], language: str | None) -> list[bytes]:
    """Return the packed terms of each chunk. Takes 1 ms for four chunks: call it outside of transactions."""
    return [packed_terms(chunk.searched, language) for chunk in chunks]


def replace_document(
    session: Session,
    *,
    tenant: str,
    document_id: int,
    version_id: int,
    generation: str,
    language: str | None,
    chunks: Sequence[NewChunk],
    terms: Sequence[bytes],
    document_terms: bytes,
    vectors: Sequence[bytes],
    beside: Mapping[str, Sequence[bytes]] | None = None,
) -> int:
    """Replace a document's chunks; return the number of the change.

    Must be the last statement of its transaction: the counter stays locked until the commit. `beside` maps other
    generations to their vectors.
    """
    session.execute(sa.delete(Chunk).where(Chunk.document_id == document_id))
    rows = [
        {
            "tenant": tenant,
            "document_id": document_id,
            "version_id": version_id,
            "generation": generation,
            "ordinal": ordinal,
            "text": chunk.text,
            "span_start": chunk.start,
            "span_end": chunk.end,
            "page": chunk.page,
            "headings": list(chunk.headings),
            "language": primary(language),
            "text_hash": chunk.text_hash,
            "terms": packed,
            "analyzer": ANALYZER_VERSION,
            "document_terms": None if ordinal else document_terms,
            "vector": vector,
        }
        for ordinal, (chunk, packed, vector) in enumerate(zip(chunks, terms, vectors, strict=True))
    ]
    for first in range(0, len(rows), ROWS_AT_ONCE):
        session.execute(sa.insert(Chunk), rows[first : first + ROWS_AT_ONCE])
    _put_beside(session, document_id, beside or {})
    return _change(session, tenant, document_id, "put")


def _put_beside(session: Session, document_id: int, beside: Mapping[str, Sequence[bytes]]) -> None:
    if not beside:
        return
    query = sa.select(Chunk.id).where(Chunk.document_id == document_id).order_by(Chunk.ordinal)
    ids = list(session.scalars(query))
    rows = [
        {"chunk_id": chunk_id, "generation": generation, "vector": vector}
        for generation, vectors in beside.items()
        for chunk_id, vector in zip(ids, vectors, strict=True)
    ]
    for first in range(0, len(rows), ROWS_AT_ONCE):
        session.execute(sa.insert(ChunkVector), rows[first : first + ROWS_AT_ONCE])


def touch_document(session: Session, *, tenant: str, document_id: int) -> int:
    """Record a change of the document's fields without its chunks. Last statement, like replace_document()."""
    return _change(session, tenant, document_id, "put")


def drop_document(session: Session, *, tenant: str, document_id: int) -> int:
    """Remove a document from search; the change is the tombstone. Last statement, like replace_document()."""
    session.execute(sa.delete(Chunk).where(Chunk.document_id == document_id))
    return _change(session, tenant, document_id, "drop")


def force_rebuild(session: Session) -> int:
    """Force every engine to rebuild, by pruning all changes; return the number of this change."""
    _insert_counter(session)
    return session.scalars(
        sa.update(ChangeCounter)
        .where(ChangeCounter.id == COUNTER)
        .values(value=ChangeCounter.value + 1, pruned=ChangeCounter.value + 1)
        .returning(ChangeCounter.value)
        .execution_options(synchronize_session=False)
    ).one()


def prune_changes(session: Session, older_than: datetime) -> int:
    """Delete changes made before then and record up to which; an engine that has not read them is rebuilt."""
    last = session.scalar(sa.select(sa.func.max(IndexChange.seq)).where(IndexChange.at < older_than))
    if last is None:
        return 0
    behind = (ChangeCounter.id == COUNTER, ChangeCounter.pruned < last)
    session.execute(sa.update(ChangeCounter).where(*behind).values(pruned=last))
    return session.execute(sa.delete(IndexChange).where(IndexChange.seq <= last)).rowcount  # type: ignore[attr-defined, no-any-return]


def ask_to_follow(session: Session) -> None:
    """Queue a job that updates the engine, if it runs outside of the searching process."""
    if get_settings().search_engine != "embedded":
        enqueue(session, FollowIndex(), tenant=DEFAULT_TENANT)


def _change(session: Session, tenant: str, document_id: int, op: str) -> int:
    session.flush()
    ask_to_follow(session)
    take = (
        sa.update(ChangeCounter)
        .where(ChangeCounter.id == COUNTER)
        .values(value=ChangeCounter.value + 1)
        .returning(ChangeCounter.value)
        .execution_options(synchronize_session=False)
    )
    seq = session.scalar(take)
    if seq is None:  # the first change ever, if the migration did not insert the row
        _insert_counter(session)
        seq = session.scalars(take).one()
    row = {"seq": seq, "tenant": tenant, "document_id": document_id, "op": op, "at": clock.now()}
    session.execute(sa.insert(IndexChange), row)
    return seq


def _insert_counter(session: Session) -> None:
    session.execute(
        sa.text("INSERT INTO change_counter (id, value, pruned) VALUES (:id, 0, 0) ON CONFLICT DO NOTHING"),
        {"id": COUNTER},
    )
