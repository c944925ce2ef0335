"""`millrace crawl`: a site's pages found and indexed by one job, and crawls in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client import follow_jobs
from app.cli.client.http import Server

METRICS = "/api/metrics/crawls"


def start(body: dict[str, Any], *, wait: bool, as_json: bool) -> int:
    """The job; with `wait` its bar until the end, and what became of the pages."""
    with Server() as server:
        job = server.post("/api/crawls", body)
    if not wait:
        if as_json:
            output.emit(job)
        else:
            output.out.print(f"{output.state(job['state'])}  {job['id']}")
        return exit_codes.OK
    code = follow_jobs.follow([job["id"]], timeout_s=None, as_json=as_json)
    return code if as_json else max(code, show(job["id"], as_json=False))


def show(crawl_id: str, *, as_json: bool) -> int:
    """One crawl: how far it is, and the pages that failed."""
    with Server() as server:
        found = server.get(f"{METRICS}/{crawl_id}", include_per_page=True)
    if as_json:
        output.emit(found)
        return exit_codes.OK
    numbers = f"{found['pages_indexed']} indexed, {found['pages_failed']} failed, {found['total_pages']} in all"
    output.out.print(f"{output.text(found['status'])}  {output.text(found['crawl_url'])}  {numbers}")
    if found["error_message"]:
        output.out.print(f"  {output.text(found['error_message'])}")
    for page in found["per_page_metrics"]:
        if page["success"] is False:
            output.out.print(f"  [red]failed[/]  {output.text(page['url'])}  {output.text(page['error_message'])}")
    return exit_codes.OK


def show_list(*, limit: int, as_json: bool) -> int:
    """The newest first, also those that Firecrawl told of."""
    with Server() as server:
        page = server.get(METRICS, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    names: Sequence[str] = ("crawl_id", "status", "crawl_url", "total_pages", "pages_indexed", "pages_failed")
    table = Table("crawl", "state", "url", "pages", "indexed", "failed", box=None, pad_edge=False)
    for one in page["data"]:
        table.add_row(*(output.text(one[name]) for name in names))
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK
