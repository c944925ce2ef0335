"""A snippet shows the words that were found, and says where they stand in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.search.text.analyzer import query_terms
from app.search.text.snippets import LENGTH, snippet

FILLER = "Lorem ipsum dolor sit amet consectetur. " * 20


def test_the_window_with_the_most_different_words_is_shown() -> None:
    text = f"{FILLER}wheel wheel wheel. {FILLER}The old wheels stand by the sluice gate. {FILLER}"
    shown = snippet(text, query_terms("wheel sluice", ["en"]), "en")
    assert len(shown.text) <= LENGTH
    assert [shown.text[start:end] for start, end in shown.highlights] == ["wheels", "sluice"]


def test_a_short_text_is_shown_whole() -> None:
    shown = snippet("The wheel.", query_terms("wheels", ["en"]), "en")
    assert (shown.text, shown.highlights) == ("The wheel.", [(4, 9)])


def test_pairs_of_characters_are_highlighted_as_one() -> None:
    shown = snippet("古い水車小屋", query_terms("水車小屋", ["ja"]), "ja")
    assert [shown.text[start:end] for start, end in shown.highlights] == ["水車小屋"]


@given(st.text(max_size=600), st.text(max_size=30), st.integers(20, 300))
def test_spans_are_within_the_snippet(text: str, query: str, length: int) -> None:
    shown = snippet(text, query_terms(query, ["en"]), "en", length=length)
    assert shown.text in text and len(shown.text) <= length
    ends = 0
    for start, end in shown.highlights:
        assert ends <= start < end <= len(shown.text)
        ends = end
