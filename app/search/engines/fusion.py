"""Fusion of two scores or rankings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RRF_K = 60


def rrf(
    rankings: Sequence[npt.NDArray[np.int64]], *, k: int = RRF_K
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the ids of all rankings, each once, with their scores by reciprocal rank: the sum of 1 / (k + rank), from
    1.

    Each ranking is best first with unique ids; its own scores are not comparable and not used. A larger k flattens the
    top; 60 after Cormack, Clarke, Büttcher, SIGIR 2009.
    """
    ids, places = np.unique(np.concatenate(rankings), return_inverse=True)
    shares = np.concatenate([1.0 / (k + np.arange(1, len(ranking) + 1)) for ranking in rankings])
    return ids, np.bincount(places, shares, len(ids)).astype(np.float64)


def share_of_best(scores: npt.NDArray[np.float64], matched: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return each matched score as a share of the best one, from 0 to 1; for scores without an upper bound."""
    best = float(scores[matched].max(initial=0.0))
    return np.where(matched, np.maximum(scores, 0.0) / best, 0.0) if best > 0 else np.zeros(len(scores))


def similarity(scores: npt.NDArray[np.float64], matched: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return each matched cosine as it is, from 0 to 1: one far from the query stays low, even if it is the best."""
    return np.where(matched, np.clip(scores, 0.0, 1.0), 0.0)
