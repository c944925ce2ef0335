"""Print the results of a search."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from app.cli import output

MAX_PASSAGE_LETTERS = 320


def print_results(response: dict[str, Any]) -> None:
    """Print rank, title, score, address and passage of each hit, after notes on how the query was searched."""
    for note in list_notes(response):
        output.out.print(f"[dim]{output.plain(note)}[/]")
    for rank, hit in enumerate(response["results"], start=1):
        title = output.plain(hit.get("title") or hit.get("url"))
        score = f"{hit['score']:.4f}{' weak' if hit.get('weak') else ''}"
        output.out.print(f"[bold]{rank}[/]  [bold]{title}[/]  [dim]{score}[/]  {output.plain(hit['url'])}")
        snippet = str(hit.get("snippet") or hit.get("text") or "")
        output.out.print(format_passage(snippet, hit.get("highlights") or []))
        output.out.print()
    if not response["results"]:
        output.out.print("nothing found")


def list_notes(response: dict[str, Any]) -> list[str]:
    """Return sentences on what the answer is not: exact words, words at all, a whole search."""
    notes = [f"no document has the exact words: {phrase}" for phrase in response.get("relaxed") or ()]
    if response.get("corrected_query"):
        notes.append(f"searched instead: {response['corrected_query']}")
    if response.get("words_matched") is False and response["results"]:
        notes.append("no document has a word of the query; these are near in meaning")
    return [*notes, *(response.get("degraded") or ())]


def format_passage(snippet: str, highlights: list[list[int]]) -> Text:
    """Return the snippet as one line with its matches in colour.

    Each white-space letter becomes one blank, so the spans of the highlights stay valid.
    """
    line = Text("".join(" " if letter.isspace() else letter for letter in snippet))
    for start, end in highlights:
        line.stylize("bold yellow", start, end)
    line.truncate(MAX_PASSAGE_LETTERS, overflow="ellipsis")
    return Text("   ") + line
