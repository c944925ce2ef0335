"""Our postings and rank-bm25 give the same scores but for common words, whatever was added and removed."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from app.search.engines.memory.bm25 import COMMON_WEIGHT, Bm25
from app.search.text.analyzer import pack, term_hash

TERMS = st.integers(0, 12).map(lambda n: term_hash(f"term{n}"))


class Positive(BM25Okapi):  # type: ignore[misc]
    """rank-bm25 with our rarity of words."""

    def _calc_idf(self, nd: dict[int, int]) -> None:
        for word, df in nd.items():
            odds = (self.corpus_size - df + 0.5) / (df + 0.5)
            self.idf[word] = max(math.log(odds), COMMON_WEIGHT * math.log(1 + odds))


DOCUMENTS = st.lists(TERMS, min_size=0, max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), DOCUMENTS),
        st.tuples(st.just("many"), st.lists(DOCUMENTS, max_size=4)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("merge"), st.none()),
    ),
    max_size=20,
)


def _check(ours: Bm25, living: dict[int, list[int]], query: list[int]) -> None:
    scores, found = ours.match(Counter(query))
    if not any(living.values()):
        assert not scores.any()
        return
    parent = Positive(list(living.values()))
    np.testing.assert_allclose(scores[list(living)], parent.get_scores(query), rtol=0, atol=1e-9)
    assert ours.avgdl == pytest.approx(parent.avgdl)
    assert ours.corpus_size == parent.corpus_size
    for slot in range(ours.slots):
        assert found[slot] == (slot in living and bool(set(living[slot]) & set(query)))
        assert (scores[slot] > 0) == found[slot]


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, query=st.lists(TERMS, max_size=6), min_merge=st.sampled_from([0, 8, 50_000]))
def test_scores_equal_the_parents_after_any_history(
    steps: list[tuple[str, object]], query: list[int], min_merge: int
) -> None:
    """Additions one by one or in bulk, removals (also twice) and merges leave exactly the living documents."""
    ours, living = Bm25(min_merge=min_merge), {}
    for step, value in steps:
        if step == "add":
            assert isinstance(value, list)
            living[ours.add(pack(value))] = value
        elif step == "many":
            assert isinstance(value, list)
            living.update(zip(ours.add_many(list(map(pack, value))), value, strict=True))
        elif step == "remove":
            assert isinstance(value, int)
            if value < ours.slots:
                ours.remove(value)
                living.pop(value, None)
        else:
            ours.merge()
    _check(ours, living, query)


def test_growing_past_a_merge_changes_no_score() -> None:
    """The small dictionary is merged into the base automatically."""
    rng = np.random.default_rng(1)
    ours, living = Bm25(min_merge=50), {}
    for _ in range(200):
        document = rng.zipf(1.5, 20).clip(max=5000).tolist()
        living[ours.add(pack(document))] = document
    for slot in range(0, 200, 3):
        ours.remove(slot)
        del living[slot]
    _check(ours, living, [1, 2, 3, 40, 41, 1])
    ours.merge()
    _check(ours, living, [1, 2, 3, 40, 41, 1])


def test_an_empty_corpus_scores_nothing() -> None:
    """The parent divides by zero here."""
    ours = Bm25()
    assert len(ours.match({1: 1.0})[0]) == 0
    slot = ours.add(pack([1]))
    ours.remove(slot)
    assert ours.match({1: 1.0})[0].tolist() == [0.0]


def test_an_uncounted_term_is_found_and_makes_its_document_no_longer() -> None:
    ours = Bm25()
    ours.add(pack([1, 2], [3]))
    assert ours.avgdl == 2
    assert ours.match({3: 1.0})[0].tolist() == ours.match({2: 1.0})[0].tolist()
