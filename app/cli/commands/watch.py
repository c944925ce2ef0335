"""`millrace watch`: pages that changedetection.io checks for changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import follow_jobs, http, output
from app.cli.options import AsJson, LongLimit, WaitForJob, new_group

PATH = "/api/watches"
COLUMNS = ("document_id", "state", "url", "watch_id", "error")

watch = new_group("Pages that changedetection.io checks for changes.")


@watch.command("add")
def add_watches(
    urls: Annotated[list[str], typer.Argument(help="Addresses of pages.", metavar="URL…")],
    wait: WaitForJob = False,
    as_json: AsJson = False,
) -> int:
    """Watch pages; a page that is not indexed yet is fetched first."""
    with http.ApiClient() as api:
        started = [api.post(PATH, {"url": url}) for url in urls]
    for url, job in zip(urls, started, strict=True):
        if not as_json:
            output.out.print(f"{output.plain(url)}  {output.plain(job['watch']['state'])}")
    return _follow(started, wait=wait, as_json=as_json)


@watch.command("list")
def list_watches(
    state: Annotated[
        Literal["wanted", "present", "unwanted", "removed", "failed"] | None, typer.Option(help="Only this state.")
    ] = None,
    limit: LongLimit = 50,
    as_json: AsJson = False,
) -> int:
    """List watched pages with their errors, the newest first."""
    with http.ApiClient() as api:
        page = api.get(PATH, state=state, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("document", "state", "url", "watch", "error")
    for row in page["data"]:
        table.add_row(*(output.plain(row[name]) for name in COLUMNS))
    output.print_page(table, page)
    return exit_codes.OK


@watch.command("remove")
def remove_watch(
    page: Annotated[str, typer.Argument(help="Address of the page, or id of its document.", metavar="URL|ID")],
    wait: WaitForJob = False,
    as_json: AsJson = False,
) -> int:
    """Stop watching a page; it stays indexed."""
    with http.ApiClient() as api:
        document = page if page.isdecimal() else _find_document(api.get(PATH, url=page, limit=1)["data"], page)
        job = api.delete(f"{PATH}/{document}")
    return _follow([job], wait=wait, as_json=as_json)


@watch.command("sync")
def sync_watches(wait: WaitForJob = False, as_json: AsJson = False) -> int:
    """Create the missing watches and remove those of deleted pages; a schedule does so each minute."""
    with http.ApiClient() as api:
        job = api.post(f"{PATH}:sync")
    return _follow([job], wait=wait, as_json=as_json)


@watch.command("template")
def show_template(as_json: AsJson = False) -> int:
    """Show the notification settings for a watch made by hand; they contain a token (scope admin)."""
    with http.ApiClient() as api:
        template = api.get(f"{PATH}/template")
    if as_json:
        output.emit(template)
        return exit_codes.OK
    output.out.print("[bold]Notification URL list[/]")
    for url in template["notification_urls"]:
        output.out.print(output.plain(url))
    output.out.print("\n[bold]Notification body[/]")
    output.out.print(output.plain(template["notification_body"]))
    output.out.print(f"\n[bold]Notification format[/]\n{output.plain(template['notification_format'])}")
    return exit_codes.OK


def _find_document(rows: list[dict[str, Any]], url: str) -> str:
    if not rows:
        raise CliExit(exit_codes.NOT_FOUND, f"{url} is not watched")
    return str(rows[0]["document_id"])


def _follow(started: list[dict[str, Any]], *, wait: bool, as_json: bool) -> int:
    """Print the jobs, or with `wait` follow them; one job may create the watches of several pages."""
    jobs: dict[str, dict[str, Any]] = {}
    for job in started:
        jobs.setdefault(job["id"], job)
    if wait:
        return follow_jobs.follow(list(jobs), timeout_s=None, as_json=as_json)
    for job in jobs.values():
        output.print_job(job, as_json)
    return exit_codes.OK
