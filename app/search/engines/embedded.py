"""The engine inside the searching process: indexes in memory that follow `change`; nothing is shared but SQL.

An index is opened by the first question of its tenant, and brought up to date before each. It can always be thrown
away and built anew, and is when it is older than what has been pruned, or more dead than alive.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.logging import get_logger
from app.search.engines.face import Ask, Engine, Found, Model, Size
from app.search.engines.memory import IndexedChunk, IndexedDocument, MemoryIndex
from app.search.models import Change, ChangeCounter, Chunk, document

DOCUMENTS_AT_ONCE = 200
ROWS_AT_ONCE = 2_000
DEAD_ALLOWED = 5_000

log = get_logger(__name__)

_FIELDS = ("domain", "language", "country", "is_mobile", "source", "tags", "fetched_at", "collection_id")


class Follower:
    """The index of one tenant and generation, and how far it has read."""

    def __init__(self, tenant: str, model: Model) -> None:
        self.lock = threading.Lock()
        self.tenant, self.model = tenant, model
        self.index = MemoryIndex(model.dimension)
        self.at = -1

    def follow(self, session: Session) -> None:
        """Read what has changed since the last time; usually one short statement says: nothing."""
        value, pruned = counter(session)
        if self.at < pruned or self.index.dead > self.index.chunks + DEAD_ALLOWED:
            self._build(session, value)
        elif self.at < value:
            self._catch_up(session, value)

    def _build(self, session: Session, value: int) -> None:
        started = clock.monotonic()
        index = MemoryIndex(self.model.dimension)
        index.put(self._documents(session))
        # What was committed while reading has numbers above `value` and is read again by the next follow.
        self.index, self.at = index, value
        took_ms = round(1000 * (clock.monotonic() - started))
        log.info("index_built", tenant=self.tenant, chunks=index.chunks, change=value, took_ms=took_ms)

    def _catch_up(self, session: Session, value: int) -> None:
        query = sa.select(Change.seq, Change.document_id).where(Change.tenant == self.tenant, Change.seq > self.at)
        rows = session.execute(query.order_by(Change.seq)).all()
        changed = list(dict.fromkeys(document_id for _, document_id in rows))
        for first in range(0, len(changed), DOCUMENTS_AT_ONCE):
            ids = changed[first : first + DOCUMENTS_AT_ONCE]
            found = {row.id: row for row in self._documents(session, ids)}
            self.index.put(found.values())
            for document_id in ids:
                if document_id not in found:
                    self.index.drop(document_id)
        self.at = max([value, *(seq for seq, _ in rows[-1:])])

    def _documents(self, session: Session, ids: Sequence[int] | None = None) -> Iterator[IndexedDocument]:
        """The tenant's documents that have chunks, or those of these ids, as they are now."""
        about = sa.select(document.c.id, *(document.c[name] for name in _FIELDS)).where(
            document.c.tenant == self.tenant
        )
        pieces = sa.select(
            Chunk.document_id,
            Chunk.id,
            Chunk.terms,
            Chunk.vector,
            Chunk.language,
            Chunk.generation,
            Chunk.document_terms,
        ).where(Chunk.tenant == self.tenant)
        if ids is not None:
            about, pieces = about.where(document.c.id.in_(ids)), pieces.where(Chunk.document_id.in_(ids))
        fields: dict[int, dict[str, Any]] = {row["id"]: dict(row) for row in session.execute(about).mappings()}
        rows = session.execute(
            pieces.order_by(Chunk.document_id, Chunk.ordinal).execution_options(yield_per=ROWS_AT_ONCE)
        )
        for document_id, group in groupby(rows, key=lambda row: row[0]):
            chunks, terms_of_all = [], None
            for _, chunk_id, terms, vector, language, generation, document_terms in group:
                known = vector if generation == self.model.generation else None
                chunks.append(IndexedChunk(chunk_id, terms, known, language))
                terms_of_all = terms_of_all or document_terms
            if document_id in fields:
                yield IndexedDocument(chunks=chunks, terms=terms_of_all or b"", **fields[document_id])


class EmbeddedEngine:
    """Every tenant's follower, opened when somebody asks for it."""

    name = "embedded"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[tuple[str, Model], Follower] = {}

    def search(self, session: Session, ask: Ask) -> Found:
        follower = self._follower(ask.tenant, ask.model)
        with follower.lock:
            follower.follow(session)
            return follower.index.search(ask)

    def size(self, session: Session, tenant: str, model: Model) -> Size:
        follower = self._follower(tenant, model)
        with follower.lock:
            follower.follow(session)
            index = follower.index
            return Size(self.name, index.documents, index.chunks, index.vectors, follower.at)

    def _follower(self, tenant: str, model: Model) -> Follower:
        with self._lock:
            key = tenant, model
            if key not in self._followers:
                self._followers[key] = Follower(tenant, model)
            return self._followers[key]


def counter(session: Session) -> tuple[int, int]:
    """The last change's number, and the last that has been pruned."""
    row = session.execute(sa.select(ChangeCounter.value, ChangeCounter.pruned)).one_or_none()
    return (0, 0) if row is None else (row.value, row.pruned)


_opened: WeakKeyDictionary[sa.Engine, EmbeddedEngine] = WeakKeyDictionary()
_opening = threading.Lock()


def engine_of(session: Session) -> Engine:
    """This process's engine for the session's database."""
    bind = session.get_bind()
    assert isinstance(bind, sa.Engine)
    with _opening:
        return _opened.setdefault(bind, EmbeddedEngine())
