"""The passages of a search in a terminal."""

from __future__ import annotations

from app.cli.client.search_results import format_passage


def test_a_passage_keeps_its_highlights_in_place() -> None:
    line = format_passage("[bold]green\ntea[/]", [[6, 11]])
    assert line.plain == "   [bold]green tea[/]"
    assert [(span.start, span.end) for span in line.spans if "bold" in str(span.style)] == [(9, 14)]
