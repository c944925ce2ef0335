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
    unpack,
    without_stop_words,
    words,
)

ANYTHING = st.text(st.characters(categories=None), max_size=200)


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        ("The Wheels, turning!", "en", ["wheel", "turn"]),
        ("Résumé RESUME re\u0301sume\u0301", "en", ["resum"] * 3),
        ("Die Mühlräder drehen", "de", ["muhlrad", "dreh"]),
        ("straße STRASSE", "de", ["strass", "strass"]),
        ("foo_bar x-ray 3.14", "en", ["foo", "bar", "x", "ray", "3", "14"]),
        ("水車が回る", "ja", ["水車", "車が", "が回", "回る"]),
        ("abc水車1", None, ["abc", "水車", "1"]),
        ("हिन्दी", "xx", ["हिन्दी"]),
        ("İstanbul", "xx", ["istanbul"]),
        ("wheels", "en-GB", ["wheel"]),
        ("", "en", []),
    ],
)
def test_terms(text: str, language: str | None, found: list[str]) -> None:
    assert terms(text, language) == found


@given(ANYTHING, st.sampled_from(["en", "de", "ru", "ar", "zz", None]))
def test_any_text_has_terms_that_pack(text: str, language: str | None) -> None:
    """Nothing fails; packed are the distinct hashes, rising, with their counts."""
    found = terms(text, language)
    hashes, counts = unpack(packed_terms(text, language))
    assert counts.sum() == len(found)
    assert set(hashes.tolist()) == {term_hash(term) for term in found}
    assert (np.diff(hashes.astype(np.int64)) > 0).all()


@given(ANYTHING)
def test_words_stand_where_they_say(text: str) -> None:
    for word in words(text):
        assert 0 <= word.start < word.end <= len(text)


def test_a_query_is_stemmed_in_every_language_of_the_index() -> None:
    """Its stop words are those of the commonest."""
    wanted = query_terms("the drehen wheels", ["en", "de"])
    assert {term_hash("wheel"), term_hash("dreh")} <= set(wanted)
    assert term_hash("the") not in wanted
    assert query_terms("the of", ["en"]) == []
    assert query_terms("wheels wheels", []) == [term_hash("wheel")] * 2


def test_counts_stop_at_sixteen_bits() -> None:
    assert unpack(pack([7] * 70_000))[1].tolist() == [0xFFFF]


def test_without_stop_words() -> None:
    assert without_stop_words("What is the weight of a wheel?").split() == ["weight", "wheel?"]
    assert without_stop_words("to be or not to be") == "to be or not to be"
    assert without_stop_words("die Mühle am Bach", "de").split() == ["Mühle", "Bach"]
