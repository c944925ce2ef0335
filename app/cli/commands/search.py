"""`millrace search`: the best documents for a query, each with its best passage."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.lazy import http, output, search_results
from app.cli.options import AsJson


def search(
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    mode: Annotated[str, typer.Option(help="hybrid, semantic or keyword.")] = "hybrid",
    limit: Annotated[int, typer.Option(min=1, max=100, help="Maximum number of hits.")] = 5,
    domain: Annotated[str | None, typer.Option(help="Only pages of this domain.")] = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only documents of this collection; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only documents with this tag; repeatable, all apply.")] = None,
    lang: Annotated[str | None, typer.Option(help="Only documents in this language, such as en.")] = None,
    operators: Annotated[
        bool | None,
        typer.Option("--operators/--no-operators", help="Read quotes and -words as operators; by default if short."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Find documents; a search without hits succeeds."""
    body: dict[str, Any] = {"query": query, "mode": mode, "limit": limit}
    filters = {"domain": domain, "collections": collection, "tags": tag, "language": lang}
    filters = {name: value for name, value in filters.items() if value}
    if filters:
        body["filters"] = filters
    if operators is not None:
        body["operators"] = operators
    with http.ApiClient() as api:
        response = api.post("/api/search", body)
    if as_json:
        output.emit(response)
    else:
        search_results.print_results(response)
    return exit_codes.OK
