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


def relative(scores: npt.NDArray[np.float64], matched: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return each matched score as a share of the best one, from 0 to 1; shares of two rankings may be added.

    If even the best is negative (Okapi of words in most documents) the share is inverted: twice is half.
    """
    shares = np.zeros(len(scores))
    if matched.any():
        best = float(scores[matched].max())
        if best > 0:
            shares[matched] = np.maximum(scores[matched], 0.0) / best
        else:
            shares[matched] = np.divide(
                best, scores[matched], out=np.ones(int(matched.sum())), where=scores[matched] < 0
            )
    return shares
