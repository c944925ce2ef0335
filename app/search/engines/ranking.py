"""Order documents by a score, or by two scores fused. Sorts only as much as a page needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from app.search.engines.base import Fusion
from app.search.engines.fusion import rrf, share_of_best, similarity

# Depth to which each ranking enters rank fusion. Fixed, so that the order does not depend on the requested page.
FUSED_DEPTH = 1000

Slots = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Ranking:
    """The slots where `matched` is true, best score first, then lowest document id.

    `are_cosines`: the scores have a meaning of their own; others are compared with the best one only.
    """

    def __init__(self, scores: Floats, matched: Bools, ids: Slots, *, are_cosines: bool = False) -> None:
        self.scores, self.matched, self.ids, self.are_cosines = scores, matched, ids, are_cosines

    @property
    def shares(self) -> Floats:
        """Return a value from 0 to 1 for each slot, to be added to those of another ranking."""
        return (similarity if self.are_cosines else share_of_best)(self.scores, self.matched)

    def score(self, slot: int) -> float | None:
        return float(self.scores[slot]) if self.matched[slot] else None

    def rank(self, slot: int) -> int | None:
        """Return the slot's rank, from 1; equal scores share the first rank of theirs."""
        if not self.matched[slot]:
            return None
        return 1 + int(np.count_nonzero(self._matched_scores > self.scores[slot]))

    @cached_property
    def _matched_scores(self) -> Floats:
        return np.where(self.matched, self.scores, -np.inf)

    def best(self, depth: int) -> tuple[Slots, Floats]:
        """Return the first `depth` slots in order, and their scores."""
        slots = np.flatnonzero(self.matched)
        scores = self.scores[slots]
        if depth < len(slots):
            border = np.partition(scores, len(slots) - depth)[len(slots) - depth]
            near = scores >= border  # all ties at the border, so that ids decide among them
            slots, scores = slots[near], scores[near]
        slots, scores = ordered(slots, scores, self.ids)
        return slots[:depth], scores[:depth]


class Order:
    """The final order of one ranking, or of two fused."""

    def __init__(
        self, rankings: Sequence[Ranking], fusion: Fusion, rrf_k: int, weights: Sequence[float] | None = None
    ) -> None:
        """Fuse the rankings. `weights`: the weight of each ranking in the mean of shares; equal by default."""
        self._ids = rankings[0].ids
        self.matched = np.logical_or.reduce([ranking.matched for ranking in rankings])
        self.total = int(self.matched.sum())
        if len(rankings) > 1 and fusion == "relative":
            shares = np.average([ranking.shares for ranking in rankings], axis=0, weights=weights)
            rankings = [Ranking(shares, self.matched, self._ids)]
        self._rankings, self._k = rankings, rrf_k

    def page(self, limit: int, offset: int, after: tuple[float, int] | None) -> tuple[list[tuple[int, float]], int]:
        """Return the page's (slot, score) pairs, and its offset.

        `after` is the last hit of the previous page; the page then starts after that hit's current position.
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
        """Return at least the first `count`, if there are as many."""
        if len(self._rankings) == 1:
            return self._rankings[0].best(count)
        heads = [ranking.best(FUSED_DEPTH)[0] for ranking in self._rankings]
        slots, scores = ordered(*rrf(heads, k=self._k), self._ids)
        if count <= len(slots) or len(slots) == self.total:
            return slots, scores
        # Documents that are deep in both rankings follow by the second one's scores, below the lowest fused score.
        left = self.matched.copy()
        left[slots] = False
        rest = np.flatnonzero(left)
        rest, _ = ordered(rest, self._rankings[-1].scores[rest], self._ids)
        tail = 1.0 / (self._k + FUSED_DEPTH + 1 + np.arange(1, len(rest) + 1))
        return np.concatenate([slots, rest]), np.concatenate([scores, tail])


def ordered(slots: Slots, scores: Floats, ids: Slots) -> tuple[Slots, Floats]:
    """Return both arrays, best score first, then lowest document id."""
    order = np.lexsort((ids[slots], -scores))
    return slots[order], scores[order]
