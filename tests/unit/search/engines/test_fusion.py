"""Two scores made one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from app.search.engines.base import Fusion
from app.search.engines.fusion import relative, rrf
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
    """The best is 1, what was not found is 0; among negative scores the least bad is 1."""
    found = np.array([True, True, True, False])
    assert relative(np.array([4.0, 1.0, -1.0, 9.0]), found).tolist() == [1, 0.25, 0, 0]
    assert relative(np.array([-1.0, -4.0, -2.0, 9.0]), found).tolist() == [1, 0.25, 0.5, 0]
    assert relative(np.array([0.0, -4.0, 0.0, 9.0]), found).tolist() == [1, 0, 1, 0]
    assert relative(np.zeros(4), np.zeros(4, np.bool_)).tolist() == [0, 0, 0, 0]


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
