"""`millrace crawl`: find and index the pages of a site."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from app.cli import exit_codes
from app.cli.lazy import follow_jobs, http, output
from app.cli.options import AsJson, LongLimit, new_group

METRICS_PATH = "/api/metrics/crawls"
COLUMNS = ("crawl_id", "status", "crawl_url", "total_pages", "pages_indexed", "pages_failed")

crawl = new_group("Crawls of sites.")


@crawl.command("start")
def start_crawl(
    url: Annotated[str, typer.Argument(help="First page.", metavar="URL")],
    depth: Annotated[int, typer.Option(min=0, max=20, help="Maximum number of links from the first page.")] = 3,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of pages.")] = 100,
    include: Annotated[list[str] | None, typer.Option(help="Only these paths: /docs/*", metavar="PATTERN")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not these paths.", metavar="PATTERN")] = None,
    sitemap: Annotated[Literal["include", "only", "skip"], typer.Option(help="Pages of the sitemap.")] = "include",
    subdomains: Annotated[bool, typer.Option("--subdomains", help="Include subdomains of the first page.")] = False,
    engine: Annotated[
        Literal["auto", "builtin", "firecrawl"], typer.Option(help="auto: Firecrawl if it is configured.")
    ] = "auto",
    tag: Annotated[list[str] | None, typer.Option(help="A tag for every page; repeatable.")] = None,
    collection: Annotated[str | None, typer.Option(help="Collection for the pages.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the last page is indexed; exit with 1 if a page failed.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Find and index the pages of a site, as one job that can be followed and cancelled."""
    body = {
        "url": url, "max_depth": depth, "limit": limit, "include": include or [], "exclude": exclude or [],
        "sitemap": sitemap, "subdomains": subdomains, "engine": engine, "tags": tag or [], "collection": collection,
    }  # fmt: skip
    with http.ApiClient() as api:
        job = api.post("/api/crawls", body)
    code = follow_jobs.follow_started(job, wait=wait, as_json=as_json)
    if not wait:
        return code
    metrics = _read_crawl(job["id"])
    if not as_json:
        _print_crawl(metrics)
    return max(code, exit_codes.FAILED if metrics["pages_failed"] else exit_codes.OK)


@crawl.command("show")
def show_crawl(
    crawl_id: Annotated[str, typer.Argument(help="Id of the crawl.", metavar="ID")], as_json: AsJson = False
) -> int:
    """Show the progress of a crawl and its failed pages."""
    metrics = _read_crawl(crawl_id)
    if as_json:
        output.emit(metrics)
    else:
        _print_crawl(metrics)
    return exit_codes.OK


@crawl.command("list")
def list_crawls(limit: LongLimit = 20, as_json: AsJson = False) -> int:
    """List crawls, the newest first, including those that Firecrawl reported."""
    with http.ApiClient() as api:
        page = api.get(METRICS_PATH, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("crawl", "state", "url", "pages", "indexed", "failed")
    for metrics in page["data"]:
        table.add_row(*(output.plain(metrics[name]) for name in COLUMNS))
    output.print_page(table, page)
    return exit_codes.OK


def _read_crawl(crawl_id: str) -> dict[str, Any]:
    with http.ApiClient() as api:
        crawl_id = api.full_id("/api/jobs", crawl_id)  # a crawl of ours has the id of its job
        return dict(api.get(f"{METRICS_PATH}/{crawl_id}", include_per_page=True))


def _print_crawl(metrics: dict[str, Any]) -> None:
    counts = f"{metrics['pages_indexed']} indexed, {metrics['pages_failed']} failed, {metrics['total_pages']} in all"
    output.out.print(f"{output.plain(metrics['status'])}  {output.plain(metrics['crawl_url'])}  {counts}")
    if metrics["error_message"]:
        output.out.print(f"  {output.plain(metrics['error_message'])}")
    _print_facts(metrics["extra_metadata"])
    for page in metrics["per_page_metrics"]:
        if page["success"] is False:
            output.out.print(f"  [red]failed[/]  {output.plain(page['url'])}  {output.plain(page['error_message'])}")


def _print_facts(facts: dict[str, Any]) -> None:
    """Print the site that the crawl moved to, patterns with pages that were left out, and unread files of sitemaps."""
    sitemap = facts.get("sitemap") or {}
    if facts.get("moved_to"):
        output.out.print(f"  moved to {output.plain(facts['moved_to'])}")
    for pattern in facts.get("bounded") or ():
        output.out.print(f"  [yellow]further pages left out[/]  {output.plain(pattern)}")
    for url in sitemap.get("broken") or ():
        output.out.print(f"  [yellow]sitemap not read to its end[/]  {output.plain(url)}")
    if sitemap.get("unread"):
        output.out.print(f"  [yellow]{sitemap['unread']} files of the sitemap were not read[/]")
