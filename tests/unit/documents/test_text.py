"""Stored text is clean, whatever the input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidInput
from app.documents.text import MAX_DEPTH, clean, clean_line, detect_language, first_heading, scrub

ANYTHING = st.text(st.characters(categories=None), max_size=300)


@given(ANYTHING)
def test_clean_is_idempotent_and_its_result_can_be_stored(text: str) -> None:
    """UTF-8 can say it, PostgreSQL takes it, and cleaning again changes nothing."""
    cleaned = clean(text)
    assert "\x00" not in cleaned and "\r" not in cleaned
    cleaned.encode()
    assert clean(cleaned) == cleaned


def test_lines_and_paragraphs_stay() -> None:
    assert clean("a  \r\nb\r\r\r\r\r\r\nc\u2028d \t") == "a\nb\n\n\nc\nd"
    assert clean("    indented code") == "indented code"
    assert clean_line(" two\n lines\x00 ") == "two lines"
    assert clean_line(" \x00 ") is None and clean_line(None) is None


def test_language() -> None:
    """Told for a few words, not for one or two."""
    assert detect_language("The water drives the wheel of the mill that grinds the flour for the bread") == "en"
    assert detect_language("Das Wasser treibt das Rad der Mühle, die das Mehl für das Brot mahlt") == "de"
    assert detect_language("水車は川の水で回り、粉を挽く。村の人々はそれを大切にしている。") == "ja"
    assert detect_language("wheel") is None
    assert detect_language("1 2 3 4 5 6 7 8 9 10") is None


def test_headings_are_titles() -> None:
    assert first_heading("text\n\n## Second\n\n# The *title* #\n") == "The *title*"
    assert first_heading("## Only this\n\ntext") == "Only this"
    assert first_heading("text\n\n## late") is None


def test_scrub_refuses_values_nested_too_deeply() -> None:
    value: object = "x"
    for _ in range(MAX_DEPTH + 2):
        value = [value]
    with pytest.raises(InvalidInput):
        scrub(value)
    assert scrub({"a\x00": [1, float("inf"), {"b": "\ud800c"}]}) == {"a": [1, None, {"b": "c"}]}
