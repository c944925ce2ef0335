"""The words of `millrace crawl` and their options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli.exit_codes import EXITS

crawl = typer.Typer(help="Crawls of sites.", no_args_is_help=True, epilog=EXITS, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]


@crawl.command("start")
def crawl_start(
    url: Annotated[str, typer.Argument(help="Where it starts.", metavar="URL")],
    depth: Annotated[int, typer.Option(min=0, max=20, help="Links away from the start.")] = 3,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Pages at the most.")] = 100,
    include: Annotated[list[str] | None, typer.Option(help="Only such paths: /docs/*", metavar="PATTERN")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No such paths.", metavar="PATTERN")] = None,
    sitemap: Annotated[
        Literal["include", "only", "skip"], typer.Option(help="Pages that the sitemap names.")
    ] = "include",
    subdomains: Annotated[bool, typer.Option("--subdomains", help="Also hosts below the start's.")] = False,
    engine: Annotated[
        Literal["auto", "builtin", "firecrawl"], typer.Option(help="auto: Firecrawl where one is set up.")
    ] = "auto",
    tag: Annotated[list[str] | None, typer.Option(help="A tag for each page.")] = None,
    collection: Annotated[str | None, typer.Option(help="Where the pages go.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the last page is indexed.")] = False,
    as_json: Json = False,
) -> int:
    """Find a site's pages and index them; one job, with a bar, to be cancelled like any other."""
    from app.cli.commands import crawl as command

    body = {
        "url": url, "max_depth": depth, "limit": limit, "include": include or [], "exclude": exclude or [],
        "sitemap": sitemap, "subdomains": subdomains, "engine": engine, "tags": tag or [], "collection": collection,
    }  # fmt: skip
    return command.start(body, wait=wait, as_json=as_json)


@crawl.command("show")
def crawl_show(
    crawl_id: Annotated[str, typer.Argument(help="The crawl's id.", metavar="ID")], as_json: Json = False
) -> int:
    """One crawl: how far it is, and the pages that failed."""
    from app.cli.commands import crawl as command

    return command.show(crawl_id, as_json=as_json)


@crawl.command("list")
def crawl_list(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20, as_json: Json = False
) -> int:
    """Crawls, the newest first, also those that Firecrawl told of."""
    from app.cli.commands import crawl as command

    return command.show_list(limit=limit, as_json=as_json)
