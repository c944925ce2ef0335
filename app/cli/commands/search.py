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
    operators: Annotated[
        bool | None,
        typer.Option("--operators/--no-operators", help="Read quotes and -words as operators; by default if short."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Find documents; a search without hits succeeds."""
    body: dict[str, Any] = {"query": query, "mode": mode, "limit": limit}
    if operators is not None:
        body["operators"] = operators
    if domain:
        body["filters"] = {"domain": domain}
    with http.ApiClient() as api:
        response = api.post("/api/search", body)
    if as_json:
        output.emit(response)
    else:
        search_results.print_results(response)
    return exit_codes.OK
