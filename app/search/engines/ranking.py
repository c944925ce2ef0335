"""Documents in the order of a score, and two such orders as one; nothing is sorted further than a page needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app.search.engines.base import Fusion
from app.search.engines.fusion import relative, rrf

# How deep each ranking enters the fusion by ranks. Fixed, so that the order does not depend on the page asked for.
FUSED_DEPTH = 1000

Slots = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Ranking:
    """The slots where `found` is true, best score first, then lowest document id."""

    def __init__(self, scores: Floats, found: Bools, ids: Slots) -> None:
        self.scores, self.found, self.ids = scores, found, ids

    def score(self, slot: int) -> float | None:
        return float(self.scores[slot]) if self.found[slot] else None

    def rank(self, slot: int) -> int | None:
        """The slot's place, from 1; equal scores share the first of theirs."""
        if not self.found[slot]:
            return None
        return 1 + int(np.count_nonzero(self._only_found > self.scores[slot]))

    @cached_property
    def _only_found(self) -> Floats:
        return np.where(self.found, self.scores, -np.inf)

    def best(self, depth: int) -> tuple[Slots, Floats]:
        """The first `depth` slots in their order, and their scores."""
        slots = np.flatnonzero(self.found)
        scores = self.scores[slots]
        if depth < len(slots):
            border = np.partition(scores, len(slots) - depth)[len(slots) - depth]
            near = scores >= border  # all that tie at the border, so that ids decide among them
            slots, scores = slots[near], scores[near]
        slots, scores = ordered(slots, scores, self.ids)
        return slots[:depth], scores[:depth]


class Order:
    """The final order of one ranking, or of two together."""

    def __init__(
        self, rankings: Sequence[Ranking], fusion: Fusion, rrf_k: int, weights: Sequence[float] | None = None
    ) -> None:
        """`weights`: what a share of each ranking's best counts, where they are joined by shares; by default alike."""
        self._ids = rankings[0].ids
        self.found = np.logical_or.reduce([ranking.found for ranking in rankings])
        self.total = int(self.found.sum())
        if len(rankings) > 1 and fusion == "relative":
            counted = weights or [1.0] * len(rankings)
            shares = [
                weight * relative(ranking.scores, ranking.found)
                for weight, ranking in zip(counted, rankings, strict=True)
            ]
            rankings = [Ranking(np.sum(shares, axis=0), self.found, self._ids)]
        self._rankings, self._k = rankings, rrf_k

    def page(self, limit: int, offset: int, after: tuple[float, int] | None) -> tuple[list[tuple[int, float]], int]:
        """The page's (slot, score) pairs, and where it begins.

        With `after`, the last hit of the page before, it begins behind that hit, wherever that stands now.
        """
        slots, scores = self._first(offset + limit * (2 if after else 1))
        if after is not None:
            offset = self._behind(slots, scores, after)
        end = offset + limit
        return list(zip(slots[offset:end].tolist(), scores[offset:end].tolist(), strict=True)), offset

    def _behind(self, slots: Slots, scores: Floats, after: tuple[float, int]) -> int:
        score, document_id = after
        ids = self._ids[slots]
        same = np.flatnonzero(ids == document_id)
        if len(same):
            return int(same[0]) + 1
        return int(((scores > score) | ((scores == score) & (ids < document_id))).sum())

    def _first(self, count: int) -> tuple[Slots, Floats]:
        """At least the first `count`, where there are so many."""
        if len(self._rankings) == 1:
            return self._rankings[0].best(count)
        heads = [ranking.best(FUSED_DEPTH)[0] for ranking in self._rankings]
        slots, scores = ordered(*rrf(heads, k=self._k), self._ids)
        if count <= len(slots) or len(slots) == self.total:
            return slots, scores
        # What is deep in both rankings follows by the second one's scores, below the least of what was fused.
        left = self.found.copy()
        left[slots] = False
        rest = np.flatnonzero(left)
        rest, _ = ordered(rest, self._rankings[-1].scores[rest], self._ids)
        tail = 1.0 / (self._k + FUSED_DEPTH + 1 + np.arange(1, len(rest) + 1))
        return np.concatenate([slots, rest]), np.concatenate([scores, tail])


def ordered(slots: Slots, scores: Floats, ids: Slots) -> tuple[Slots, Floats]:
    """Both, best score first, then lowest document id."""
    order = np.lexsort((ids[slots], -scores))
    return slots[order], scores[order]
