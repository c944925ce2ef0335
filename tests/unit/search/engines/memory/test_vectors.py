"""The pass over signs finds what the exact product finds, and never puts the far before the near."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from app.search.embedders import Vectors
from app.search.engines.memory.vectors import LARGE, VectorRows


def _rows(count: int, dimension: int) -> Vectors:
    rng = np.random.default_rng(1)
    topics = rng.standard_normal((200, dimension))
    return _unit(topics[rng.integers(0, 200, count)] + 0.7 * rng.standard_normal((count, dimension)))


def _unit(rows: npt.NDArray[np.float64]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("dimension", [256, 100])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_the_nearest_are_found_among_many(dimension: int, share: float) -> None:
    """Above the size where signs come first: the best hundred are nearly those of the exact product, in its order."""
    rows = _rows(LARGE + 5_000, dimension)
    index = VectorRows(dimension)
    index.extend(rows[:10])
    index.extend(rows[10:])
    allowed = np.random.default_rng(2).random(len(rows)) < share
    recalls = []
    noise = np.random.default_rng(3).standard_normal((20, dimension)) / 20
    for question in _unit(rows[:20] + noise):
        exact = np.where(allowed, rows @ question, -2)
        nearness = np.where(allowed, index.nearness(question, allowed), -2)
        best, ours = np.argsort(-exact)[:100], np.argsort(-nearness)[:100]
        recalls.append(len(set(best) & set(ours)) / 100)
        assert best[0] == ours[0]
        np.testing.assert_allclose(nearness[ours], exact[ours], atol=1e-5)
    assert np.mean(recalls) > 0.97


def test_a_small_index_is_exact() -> None:
    rows = _rows(500, 256)
    index = VectorRows(256)
    index.extend(rows)
    np.testing.assert_allclose(index.nearness(rows[3], np.ones(500, np.bool_)), rows @ rows[3], atol=1e-6)
