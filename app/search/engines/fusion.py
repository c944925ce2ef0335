"""Two scores or rankings made one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RRF_K = 60


def rrf(
    rankings: Sequence[npt.NDArray[np.int64]], *, k: int = RRF_K
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The ids of all rankings, each once, and their scores by reciprocal rank: the sum of 1 / (k + rank), from 1.

    Each ranking best first, ids unique within it; their own scores are not comparable and not used. k flattens the top
    as it grows; 60 after Cormack, Clarke, Büttcher, SIGIR 2009.
    """
    ids, places = np.unique(np.concatenate(rankings), return_inverse=True)
    shares = np.concatenate([1.0 / (k + np.arange(1, len(ranking) + 1)) for ranking in rankings])
    return ids, np.bincount(places, shares, len(ids)).astype(np.float64)


def relative(scores: npt.NDArray[np.float64], found: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Each found score as a share of the best one, from 0 to 1; these of two rankings may be added.

    Where even the best is negative (Okapi of words that are everywhere) the share is turned round: twice is half.
    """
    shares = np.zeros(len(scores))
    if found.any():
        best = float(scores[found].max())
        if best > 0:
            shares[found] = np.maximum(scores[found], 0.0) / best
        else:
            shares[found] = np.divide(best, scores[found], out=np.ones(int(found.sum())), where=scores[found] < 0)
    return shares
