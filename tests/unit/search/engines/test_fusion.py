"""Two scores made one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from app.search.engines.base import Fusion
from app.search.engines.fusion import rrf, share_of_best, similarity
from app.search.engines.ranking import Order, Ranking

IDS = np.arange(10, 3010)


def _rankings() -> list[Ranking]:
    rng = np.random.default_rng(5)
    some, all_ = rng.random(3000) < 0.4, np.ones(3000, np.bool_)
    return [Ranking(rng.integers(0, 50, 3000) / 7, some, IDS), Ranking(rng.random(3000), all_, IDS)]


def test_reciprocal_rank_fusion_example() -> None:
    """1/(60 + rank), summed over both."""
    ids, scores = rrf([np.array([7, 5, 9]), np.array([5, 7])])
    assert dict(zip(ids.tolist(), scores.tolist(), strict=True)) == pytest.approx(
        {7: 1 / 61 + 1 / 62, 5: 1 / 62 + 1 / 61, 9: 1 / 63}
    )


def test_shares_of_the_best() -> None:
    """The best is 1, what was not matched is 0."""
    matched = np.array([True, True, True, False])
    assert share_of_best(np.array([4.0, 1.0, -1.0, 9.0]), matched).tolist() == [1, 0.25, 0, 0]
    assert share_of_best(np.array([0.0, 0.0, 0.0, 9.0]), matched).tolist() == [0, 0, 0, 0]
    assert share_of_best(np.zeros(4), np.zeros(4, np.bool_)).tolist() == [0, 0, 0, 0]


def test_cosines_keep_their_meaning() -> None:
    """The best of bad ones stays bad."""
    matched = np.array([True, True, True, False])
    assert similarity(np.array([0.2, 0.1, -0.5, 0.9]), matched).tolist() == [0.2, 0.1, 0, 0]


def test_a_fused_score_is_a_weighted_mean_from_0_to_1() -> None:
    every, ids = np.ones(3, np.bool_), np.arange(3)
    words = Ranking(np.array([8.0, 4.0, 0.0]), np.array([True, True, False]), ids)
    meaning = Ranking(np.array([0.5, 0.9, 0.3]), every, ids, are_cosines=True)
    page, _ = Order([words, meaning], "relative", 60, [1.0, 3.0]).page(3, 0, None)
    assert dict(page) == pytest.approx({0: 2.5 / 4, 1: 3.2 / 4, 2: 0.9 / 4})


@pytest.mark.parametrize("fusion", ["relative", "rrf"])
def test_every_page_is_a_part_of_one_order(fusion: Fusion) -> None:
    """Also beyond what was fused: scores never rise, nothing comes twice, all comes once."""
    order = Order(_rankings(), fusion, 60)
    whole, _ = order.page(3000, 0, None)
    assert order.total == len(whole) == len({slot for slot, _ in whole}) == 3000
    assert all(before[1] >= after[1] for before, after in pairwise(whole))
    for offset in (0, 500, 990, 1500, 2990):
        assert Order(_rankings(), fusion, 60).page(20, offset, None)[0] == whole[offset : offset + 20]
        slot, score = whole[offset]
        assert order.page(20, offset + 1, (score, int(IDS[slot]))) == (whole[offset + 1 : offset + 21], offset + 1)


def test_ranks() -> None:
    """Places in the order; equals share the first of theirs; what was not found has none."""
    only = _rankings()[0]
    slots, scores = only.best(3000)
    assert [only.rank(slot) for slot in slots.tolist()] == [scores.tolist().index(score) + 1 for score in scores]
    assert [only.score(slot) for slot in slots.tolist()] == scores.tolist()
    assert only.rank(int(np.flatnonzero(~only.matched)[0])) is None
