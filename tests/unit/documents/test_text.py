"""Stored text is clean, whatever the input."""

from __future__ import annotations

import time

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


PIXELS = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk" * 40
_LINES = "\n".join(PIXELS[at : at + 76] for at in range(0, len(PIXELS), 76))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (f"Before ![The wheel](data:image/png;base64,{PIXELS}) after", "Before The wheel after"),
        (f"![](<data:image/png;base64,{PIXELS}>)", ""),
        (f'![A](data:image/png;base64,{PIXELS} "title") end', "A end"),
        (f"[The plan](data:application/pdf;base64,{PIXELS})", "The plan"),
        (f"Seen ![][one]\n\n[one]: <data:image/png;base64,{PIXELS}>\nEnd", "Seen ![][one]\n\nEnd"),
        (f"A <img class=x alt='The wheel' src='data:image/gif;base64,{PIXELS}' width=3> b", "A The wheel b"),
        (f"a {{ background: url(data:image/png;base64,{PIXELS}) }}", "a { background: url() }"),
        (f'b {{ src: url("data:font/woff2;charset=utf-8;base64,{PIXELS}") }}', 'b { src: url("") }'),
        (f"x data:image/png;base64,\n{_LINES}\ny", "x\ny"),
        ("c url('data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22/%3E') d", None),
        ('d data:image/svg+xml;utf8,<svg xmlns="x" width="1"><path d="M0 0"/></svg> e', "d  e"),
        ("data:image/svg+xml," + "%3Cpath%20d%3D%22M0%22%2F%3E" * 20 + " f", "f"),
        (f"DATA:IMAGE/PNG;BASE64,{PIXELS} g", "g"),
    ],
)
def test_data_in_addresses_is_left_out(text: str, stored: str | None) -> None:
    cleaned = clean(text)
    assert "iVBORw" not in cleaned and "%3Cpath" not in cleaned
    assert stored is None or cleaned == stored
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    ["The data: seven, eight", "data:, data; data:text", "Use data:image/png;base64, as a prefix.", "metadata:x/y,z"],
)
def test_words_about_data_stay(text: str) -> None:
    assert clean(text) == text


def test_inline_data_takes_no_quadratic_time() -> None:
    for text in ("![](data:" * 20_000, "data:a/b;c=d" * 20_000, "<img src=data:" * 20_000, "[a]: data:" * 20_000):
        started = time.perf_counter()
        clean(text)
        assert time.perf_counter() - started < 5
