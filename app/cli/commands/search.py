"""`millrace search`: the best documents for a question, with the passage that answers it."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from app.cli import exit_codes, output
from app.cli.client.http import Server

LONGEST_PASSAGE = 320


def run(query: str, *, mode: str, limit: int, domain: str | None, as_json: bool) -> int:
    """Print the hits; finding nothing is no failure."""
    body: dict[str, Any] = {"query": query, "mode": mode, "limit": limit}
    if domain:
        body["filters"] = {"domain": domain}
    with Server() as server:
        answer = server.post("/api/search", body)
    if as_json:
        output.emit(answer)
    else:
        show(answer)
    return exit_codes.OK


def show(answer: dict[str, Any]) -> None:
    """Rank, title, score, address and passage of each hit."""
    for rank, hit in enumerate(answer["results"], start=1):
        title = output.text(hit.get("title") or hit.get("url"))
        output.out.print(f"[bold]{rank}[/]  [bold]{title}[/]  [dim]{hit['score']:.4f}[/]  {output.text(hit['url'])}")
        output.out.print(passage(str(hit.get("snippet") or hit.get("text") or ""), hit.get("highlights") or []))
        output.out.print()
    if not answer["results"]:
        output.out.print("nothing found")


def passage(snippet: str, highlights: list[list[int]]) -> Text:
    """The snippet on one line, its matches in colour; spans stay true since each letter keeps its place."""
    line = Text("".join(" " if letter.isspace() else letter for letter in snippet))
    for start, end in highlights:
        line.stylize("bold yellow", start, end)
    line.truncate(LONGEST_PASSAGE, overflow="ellipsis")
    return Text("   ") + line
