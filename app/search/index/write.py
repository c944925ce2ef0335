"""The write side: a document's chunks replaced or dropped in one transaction that ends with a numbered change."""

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
from app.search.models import Change, ChangeCounter, Chunk, ChunkVector, vector_of
from app.search.text.analyzer import packed_terms, primary

COUNTER = 1
ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk to be indexed. `context` is the title and the headings that lead to it: searched with it, not shown."""

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
        """A chunk of a document with this title. A heading that it shows itself, or that repeats the title, is not
        said twice."""
        above = [name for name in headings if name != title and name not in text[: len(name) + 8]]
        return cls(text, start, end, headings, "\n".join([title, *above] if title else above), page)

    @property
    def searched(self) -> str:
        """What is analysed and embedded."""
        return f"{self.context}\n{self.text}" if self.context else self.text

    @property
    def text_hash(self) -> str:
        """Two chunks with the same hash have the same vector."""
        return hashlib.blake2b(self.searched.encode(), digest_size=16).hexdigest()


def kept_vectors(session: Session, document_ids: Sequence[int], generation: str) -> dict[str, bytes]:
    """The vectors that the documents' chunks have now, by text hash."""
    query = sa.select(Chunk.text_hash, vector_of(generation)).where(Chunk.document_id.in_(document_ids))
    return {text_hash: vector for text_hash, vector in session.execute(query) if vector is not None}


def pack_vectors(vectors: Vectors) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(vectors, "<f4")]


def pack_terms(chunks: Sequence[NewChunk], language: str | None) -> list[bytes]:
    """The packed terms of each chunk; this takes a millisecond for four of them, so it is done outside of SQL."""
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
    """The number of the change. The last statement of its transaction: the counter stays locked until the commit.

    `beside`: the vectors of other generations, by name.
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
    """Tell engines that the document's fields have changed, its chunks not. The last statement, as above."""
    return _change(session, tenant, document_id, "put")


def drop_document(session: Session, *, tenant: str, document_id: int) -> int:
    """Take a document out of search; the last statement, as above. The change is the tombstone."""
    session.execute(sa.delete(Chunk).where(Chunk.document_id == document_id))
    return _change(session, tenant, document_id, "drop")


def force_rebuild(session: Session) -> int:
    """Have every engine think that it has missed something, which builds it anew; the number of this change."""
    _insert_counter(session)
    return session.scalars(
        sa.update(ChangeCounter)
        .where(ChangeCounter.id == COUNTER)
        .values(value=ChangeCounter.value + 1, pruned=ChangeCounter.value + 1)
        .returning(ChangeCounter.value)
        .execution_options(synchronize_session=False)
    ).one()


def prune_changes(session: Session, older_than: datetime) -> int:
    """Forget changes made before then, and remember how far; an engine that has not read so far is built anew."""
    last = session.scalar(sa.select(sa.func.max(Change.seq)).where(Change.at < older_than))
    if last is None:
        return 0
    behind = (ChangeCounter.id == COUNTER, ChangeCounter.pruned < last)
    session.execute(sa.update(ChangeCounter).where(*behind).values(pruned=last))
    return session.execute(sa.delete(Change).where(Change.seq <= last)).rowcount  # type: ignore[attr-defined, no-any-return]


def ask_to_follow(session: Session) -> None:
    """Have a job bring the engine up to date, where it is one outside of the searching process."""
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
    if seq is None:  # the first change of all, where the migration did not insert the row
        _insert_counter(session)
        seq = session.scalars(take).one()
    row = {"seq": seq, "tenant": tenant, "document_id": document_id, "op": op, "at": clock.now()}
    session.execute(sa.insert(Change), row)
    return seq


def _insert_counter(session: Session) -> None:
    session.execute(
        sa.text("INSERT INTO change_counter (id, value, pruned) VALUES (:id, 0, 0) ON CONFLICT DO NOTHING"),
        {"id": COUNTER},
    )
