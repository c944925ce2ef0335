"""The passages of a search in a terminal."""

from __future__ import annotations

from typing import Any

from app.cli.client.search_results import format_passage, list_notes


def test_a_passage_keeps_its_highlights_in_place() -> None:
    line = format_passage("[bold]green\ntea[/]", [[6, 11]])
    assert line.plain == "   [bold]green tea[/]"
    assert [(span.start, span.end) for span in line.spans if "bold" in str(span.style)] == [(9, 14)]


def test_notes_tell_what_the_answer_is_not() -> None:
    plain: dict[str, Any] = {
        "results": [{}],
        "relaxed": [],
        "corrected_query": None,
        "words_matched": True,
        "degraded": [],
    }
    assert list_notes(plain) == []
    assert list_notes(plain | {"words_matched": None}) == []
    assert list_notes(plain | {"results": [], "words_matched": False}) == []
    answer = plain | {
        "relaxed": ["mill wind"],
        "corrected_query": "wheel",
        "words_matched": False,
        "degraded": ["no model"],
    }
    assert list_notes(answer) == [
        "no document has the exact words: mill wind",
        "searched instead: wheel",
        "no document has a word of the query; these are near in meaning",
        "no model",
    ]
