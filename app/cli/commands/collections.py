"""`millrace collections`: list, show, create, change, delete."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client import follow_jobs
from app.cli.client.http import Server
from app.cli.exit_codes import Quit

PATH = "/api/collections"


def show_list(*, limit: int, as_json: bool) -> int:
    """By name, with what is in each."""
    with Server() as server:
        page = server.get(PATH, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("collection", "title", "documents", "searchable", "chunks", box=None, pad_edge=False)
    for found in page["data"]:
        counts = [str(found[name]) for name in ("documents", "documents_indexed", "chunks")]
        table.add_row(output.text(found["name"]), output.text(found["title"]), *counts)
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def show_one(name: str, *, as_json: bool) -> int:
    with Server() as server:
        return _show(server.get(f"{PATH}/{name}"), as_json)


def create(name: str, *, title: str, description: str, as_json: bool) -> int:
    with Server() as server:
        return _show(server.post(PATH, {"name": name, "title": title, "description": description}), as_json)


def change(name: str, *, new_name: str | None, title: str | None, description: str | None, as_json: bool) -> int:
    given = {"name": new_name, "title": title, "description": description}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise Quit(exit_codes.BAD_USE, "nothing to change: give --name, --title or --description")
    with Server() as server:
        return _show(server.patch(f"{PATH}/{name}", body), as_json)


def delete(name: str, *, documents: str | None, wait: bool, as_json: bool) -> int:
    """The collection gone, at once where it is empty, else by a job."""
    with Server() as server:
        job = server.delete(f"{PATH}/{name}", documents=documents)
    if job is not None and wait:
        return follow_jobs.follow([job["id"]], timeout_s=None, as_json=as_json)
    if as_json:
        output.emit(job or {"deleted": name})
    else:
        output.out.print(f"{output.state(job['state'])}  {job['id']}" if job else f"{output.text(name)} deleted")
    return exit_codes.OK


def _show(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(found)
        return exit_codes.OK
    output.out.print(f"[bold]{output.text(found['name'])}[/] {output.text(found['title'])}")
    if found["description"]:
        output.out.print(f"  {output.text(found['description'])}")
    searchable = f"{found['documents_indexed']} searchable, {found['chunks']} chunks"
    output.out.print(f"  {found['documents']} documents, {searchable}")
    return exit_codes.OK
