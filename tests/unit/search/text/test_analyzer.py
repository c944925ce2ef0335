"""Text to terms: folded, stemmed, hashed, packed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.text.analyzer import (
    pack,
    packed_terms,
    query_terms,
    term_hash,
    terms,
    typed_variants,
    unpack,
    without_stop_words,
)
from app.search.text.stopwords import STOP_WORDS
from app.search.text.words import plain_words, words

ANYTHING = st.text(st.characters(categories=None), max_size=200)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The Wheels, turning!", "en", ["wheel", "turn"]),
        ("Résumé RESUME re\u0301sume\u0301", "en", ["resum"] * 3),
        ("Die Mühlräder drehen", "de", ["muhlrad", "dreh"]),
        ("straße STRASSE", "de", ["strass", "strass"]),
        ("foo_bar x-rays 3.14", "en", ["foobar", "foo", "bar", "xray", "x", "ray", "3.14", "3", "14"]),
        ("I don't know", "en", ["dont", "know"]),
        ("水車が回る", "ja", ["水車", "車が", "が回", "回る"]),
        ("abc水車1", None, ["abc", "水車", "1"]),
        ("हिन्दी", "xx", ["हिन्दी"]),
        ("İstanbul", "xx", ["istanbul"]),
        ("wheels", "en-GB", ["wheel"]),
        ("", "en", []),
    ],
)
def test_terms(text: str, language: str | None, expected: list[str]) -> None:
    assert terms(text, language) == expected


@given(ANYTHING, st.sampled_from(["en", "de", "ru", "ar", "zz", None]))
def test_any_text_has_terms_that_pack(text: str, language: str | None) -> None:
    """Nothing fails; packed are the distinct hashes, rising, with their counts; compounds are not counted."""
    stems = terms(text, language)
    hashes, counts = unpack(packed_terms(text, language))
    stop = STOP_WORDS.get(language or "en", frozenset())
    assert counts.sum() == sum(word.folded not in stop or not word.stemmed for word in plain_words(text))
    assert set(hashes.tolist()) == {term_hash(term) for term in stems}
    assert (np.diff(hashes.astype(np.int64)) > 0).all()


@given(ANYTHING)
def test_words_stand_where_they_say(text: str) -> None:
    for word in words(text):
        assert 0 <= word.start < word.end <= len(text)


def test_a_query_is_stemmed_in_every_language_of_the_index() -> None:
    """Its stop words are those of the commonest."""
    alternatives = query_terms("the drehen wheels", ["en", "de"])
    assert {term_hash("wheel"), term_hash("dreh")} <= set(alternatives)
    assert term_hash("the") not in alternatives
    assert query_terms("the of", ["en"]) == {}
    assert query_terms("wheels wheels", []) == {term_hash("wheel"): 2}


def test_a_compound_weighs_less_than_its_parts_in_a_query_and_makes_no_text_longer() -> None:
    weights = query_terms("water-wheel", ["en"])
    assert weights[term_hash("waterwheel")] < weights[term_hash("wheel")] == 1
    assert dict(zip(*unpack(packed_terms("x-ray")), strict=True)) == {
        term_hash("xray"): 0, term_hash("x"): 1, term_hash("ray"): 1
    }  # fmt: skip


def test_a_word_with_pieces_is_searched_as_typed() -> None:
    """Its document is found by the pieces, but it does not find all documents that share one."""
    assert query_terms("report2024 getUserName", ["en"]) == {term_hash("report2024"): 1, term_hash("getusernam"): 1}
    assert {term_hash("report"), term_hash("2024")} < set(unpack(packed_terms("report2024"))[0].tolist())


def test_a_word_with_a_minus_is_left_out_as_it_is_typed() -> None:
    assert typed_variants("x-ray", ["en"]) == [[term_hash("xray")]]
    assert typed_variants(".NET", ["en"]) == [[term_hash(".net")]]
    assert typed_variants("水車小", ["ja"]) == [[term_hash("水車")], [term_hash("車小")]]


def test_counts_stop_at_sixteen_bits() -> None:
    assert unpack(pack([7] * 70_000))[1].tolist() == [0xFFFF]


def test_without_stop_words() -> None:
    assert without_stop_words("What is the weight of a wheel?").split() == ["weight", "wheel?"]
    assert without_stop_words("to be or not to be") == "to be or not to be"
    assert without_stop_words("die Mühle am Bach", "de").split() == ["Mühle", "Bach"]
