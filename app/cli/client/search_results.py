"""Print the results of a search."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from app.cli import output

MAX_PASSAGE_LETTERS = 320


def print_results(response: dict[str, Any]) -> None:
    """Print rank, title, score, address and passage of each hit."""
    for rank, hit in enumerate(response["results"], start=1):
        title = output.plain(hit.get("title") or hit.get("url"))
        output.out.print(f"[bold]{rank}[/]  [bold]{title}[/]  [dim]{hit['score']:.4f}[/]  {output.plain(hit['url'])}")
        snippet = str(hit.get("snippet") or hit.get("text") or "")
        output.out.print(format_passage(snippet, hit.get("highlights") or []))
        output.out.print()
    if not response["results"]:
        output.out.print("nothing found")


def format_passage(snippet: str, highlights: list[list[int]]) -> Text:
    """Return the snippet as one line with its matches in colour.

    Each white-space letter becomes one blank, so the spans of the highlights stay valid.
    """
    line = Text("".join(" " if letter.isspace() else letter for letter in snippet))
    for start, end in highlights:
        line.stylize("bold yellow", start, end)
    line.truncate(MAX_PASSAGE_LETTERS, overflow="ellipsis")
    return Text("   ") + line
