"""Choose the chunk of a matching document to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.search.embedders import Vectors
from app.search.engines.base import EngineRequest
from app.search.models import Chunk, vector_of

K1 = 1.5

Floats = npt.NDArray[np.float64]


class BestChunk:
    """Chooses for one query by the chunk's share of the query's word weight, plus its similarity in meaning.

    `weight` returns the weight of a term; by default all terms weigh the same.
    """

    def __init__(
        self, terms: Sequence[int], vector: Vectors | None, weight: Callable[[int], float] = lambda term: 1.0
    ) -> None:
        self._wanted = np.array(sorted(set(terms)), np.uint32)
        self._weights = np.array([weight(term) for term in self._wanted.tolist()])
        self._vector = vector

    def choose(self, spans: Sequence[tuple[int, int]], terms: Sequence[bytes], vectors: Vectors) -> list[int]:
        """Return the row of each document's best chunk; a span is the rows of its chunks. One pass: it runs in each
        query."""
        chosen = [first for first, _ in spans]
        several = [place for place, (first, last) in enumerate(spans) if last - first > 1]
        if not several:
            return chosen
        rows = np.concatenate([np.arange(*spans[place]) for place in several])
        merit = self.merit([terms[row] for row in rows.tolist()], vectors[rows])
        at = 0
        for place in several:
            first, last = spans[place]
            chosen[place] = first + int(np.argmax(merit[at : at + last - first]))
            at += last - first
        return chosen

    def merit(self, terms: Sequence[bytes], vectors: Vectors) -> Floats:
        """Return how well each chunk fits; comparable only within this query."""
        merit = self._keyword_share(terms)
        if self._vector is not None:
            merit += np.vecdot(vectors, self._vector)
        return merit

    def _keyword_share(self, chunks: Sequence[bytes]) -> Floats:
        """Return a share from 0 to 1 for each chunk."""
        if not len(self._wanted):
            return np.zeros(len(chunks))
        sizes = [len(chunk) // 6 for chunk in chunks]
        parts = list(zip(chunks, sizes, strict=True))
        hashes = np.frombuffer(b"".join(chunk[: 4 * size] for chunk, size in parts), "<u4")
        counts = np.frombuffer(b"".join(chunk[4 * size :] for chunk, size in parts), "<u2")
        at = np.minimum(np.searchsorted(self._wanted, hashes), len(self._wanted) - 1)
        present = np.flatnonzero(self._wanted[at] == hashes)
        owners = np.repeat(np.arange(len(chunks)), sizes)[present]
        frequency = np.maximum(counts[present].astype(np.float64), 1.0)
        saturated = self._weights[at[present]] * frequency / (frequency + K1)
        return np.bincount(owners, saturated, len(chunks)) / (self._weights.sum() or 1.0)


def ranked_chunks(
    session: Session, ask: EngineRequest, terms: Sequence[int], document_ids: Sequence[int]
) -> dict[int, list[tuple[int, float]]]:
    """Return the chunks (id, merit) of each document, best first, as stored in SQL now."""
    if not document_ids:
        return {}
    vector = vector_of(ask.model.generation).label("its_vector")
    query = sa.select(Chunk.document_id, Chunk.id, Chunk.terms, vector)
    query = query.where(Chunk.tenant == ask.tenant, Chunk.document_id.in_(document_ids))
    rows = session.execute(query.order_by(Chunk.document_id, Chunk.ordinal)).all()
    blank = bytes(4 * ask.model.dimension)
    packed = b"".join(row.its_vector or blank for row in rows)
    vectors = np.frombuffer(packed, "<f4").reshape(len(rows), ask.model.dimension)
    merit = BestChunk(terms, ask.vector).merit([row.terms for row in rows], vectors).tolist()
    ranked: dict[int, list[tuple[int, float]]] = {}
    for row, value in zip(rows, merit, strict=True):
        ranked.setdefault(row.document_id, []).append((row.id, value))
    return {key: sorted(chunks, key=lambda chunk: -chunk[1]) for key, chunks in ranked.items()}
