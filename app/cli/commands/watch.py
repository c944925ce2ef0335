"""`millrace watch`: pages that changedetection.io watches for us."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client import follow_jobs
from app.cli.client.http import Server
from app.cli.exit_codes import Quit

PATH = "/api/watches"


def add(urls: list[str], *, wait: bool, as_json: bool) -> int:
    """Each page watched, and fetched first where it is not known yet."""
    with Server() as server:
        jobs = [server.post(PATH, {"url": url}) for url in urls]
    for url, job in zip(urls, jobs, strict=True):
        if not as_json:
            output.out.print(f"{output.text(url)}  {output.text(job['watch']['state'])}")
    return _followed(jobs, wait=wait, as_json=as_json)


def show_list(*, state: str | None, limit: int, as_json: bool) -> int:
    """The newest first; what is wrong with a page stands beside it."""
    with Server() as server:
        page = server.get(PATH, state=state, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("document", "state", "url", "watch", "error", box=None, pad_edge=False)
    for one in page["data"]:
        table.add_row(*(output.text(one[name]) for name in ("document_id", "state", "url", "watch_id", "error")))
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def remove(which: str, *, wait: bool, as_json: bool) -> int:
    """By the page's address or its document's id."""
    with Server() as server:
        document = which
        if not which.isdecimal():
            found = server.get(PATH, url=which, limit=1)["data"]
            if not found:
                raise Quit(exit_codes.NOT_FOUND, f"{which} is not watched")
            document = found[0]["document_id"]
        job = server.delete(f"{PATH}/{document}")
    return _followed([job], wait=wait, as_json=as_json)


def sync(*, wait: bool, as_json: bool) -> int:
    with Server() as server:
        job = server.post(f"{PATH}:sync")
    return _followed([job], wait=wait, as_json=as_json)


def template(*, as_json: bool) -> int:
    """What to paste into a watch, or into changedetection.io's own settings."""
    with Server() as server:
        said = server.get(f"{PATH}/template")
    if as_json:
        output.emit(said)
        return exit_codes.OK
    output.out.print("[bold]Notification URL list[/]")
    for url in said["notification_urls"]:
        output.out.print(output.text(url))
    output.out.print("\n[bold]Notification body[/]")
    output.out.print(output.text(said["notification_body"]))
    output.out.print(f"\n[bold]Notification format[/]\n{output.text(said['notification_format'])}")
    return exit_codes.OK


def _followed(jobs: list[dict[str, Any]], *, wait: bool, as_json: bool) -> int:
    """The jobs as they are, or with `wait` as they end; watches of several pages are made by one job."""
    ids = list(dict.fromkeys(job["id"] for job in jobs))
    if wait:
        return follow_jobs.follow(ids, timeout_s=None, as_json=as_json)
    for job_id in ids:
        job = next(job for job in jobs if job["id"] == job_id)
        if as_json:
            output.emit(job)
        else:
            output.out.print(f"{output.state(job['state'])}  {job_id}")
    return exit_codes.OK
