"""Which chunk of a found document to show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.search.bm25 import Bm25
from app.search.embed import Vectors


class BestChunk:
    """For one question: the chunk with the largest share of its words' weight, and the nearest in meaning."""

    def __init__(self, bm25: Bm25, terms: Sequence[int], vector: Vectors | None) -> None:
        self._wanted = np.array(sorted(set(terms)), np.uint32)
        self._weights = np.array([abs(bm25.weight(term)) for term in self._wanted.tolist()])
        self._k1 = bm25.k1
        self._vector = vector

    def choose(self, spans: Sequence[tuple[int, int]], terms: Sequence[bytes], vectors: Vectors) -> list[int]:
        """The row of each document's best chunk; a span is the rows of its chunks. All at once: it is each query's."""
        chosen = [first for first, _ in spans]
        several = [place for place, (first, last) in enumerate(spans) if last - first > 1]
        if not several:
            return chosen
        rows = np.concatenate([np.arange(*spans[place]) for place in several])
        merit = self._keyword_share([terms[row] for row in rows.tolist()])
        if self._vector is not None:
            merit += np.vecdot(vectors[rows], self._vector)
        at = 0
        for place in several:
            first, last = spans[place]
            chosen[place] = first + int(np.argmax(merit[at : at + last - first]))
            at += last - first
        return chosen

    def _keyword_share(self, chunks: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """From 0 to 1 for each chunk."""
        if not len(self._wanted):
            return np.zeros(len(chunks))
        sizes = [len(chunk) // 6 for chunk in chunks]
        parts = list(zip(chunks, sizes, strict=True))
        hashes = np.frombuffer(b"".join(chunk[: 4 * size] for chunk, size in parts), "<u4")
        counts = np.frombuffer(b"".join(chunk[4 * size :] for chunk, size in parts), "<u2")
        at = np.minimum(np.searchsorted(self._wanted, hashes), len(self._wanted) - 1)
        present = np.flatnonzero(self._wanted[at] == hashes)
        owners = np.repeat(np.arange(len(chunks)), sizes)[present]
        frequency = counts[present].astype(np.float64)
        saturated = self._weights[at[present]] * frequency / (frequency + self._k1)
        return np.bincount(owners, saturated, len(chunks)) / (self._weights.sum() or 1.0)
