"""`millrace collections`: named sets of documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import follow_jobs, http, output
from app.cli.options import AsJson, LongLimit, new_group

PATH = "/api/collections"
COUNTS = ("documents", "documents_indexed", "chunks")

collections = new_group("Collections: named sets of documents, each searched and granted separately.")

Name = Annotated[str, typer.Argument(help="Name of the collection.", metavar="NAME")]


@collections.command("list")
def list_collections(limit: LongLimit = 50, as_json: AsJson = False) -> int:
    """List collections by name, with their numbers of documents."""
    with http.ApiClient() as api:
        page = api.get(PATH, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("collection", "title", "documents", "searchable", "chunks")
    for collection in page["data"]:
        counts = [str(collection[name]) for name in COUNTS]
        table.add_row(output.plain(collection["name"]), output.plain(collection["title"]), *counts)
    output.print_page(table, page)
    return exit_codes.OK


@collections.command("show")
def show_collection(name: Name, as_json: AsJson = False) -> int:
    """Show one collection."""
    with http.ApiClient() as api:
        return _print_collection(api.get(f"{PATH}/{name}"), as_json)


@collections.command("create")
def create_collection(
    name: Name,
    title: Annotated[str, typer.Option(help="Title for people.")] = "",
    description: Annotated[str, typer.Option(help="Purpose of the collection.")] = "",
    as_json: AsJson = False,
) -> int:
    """Create a collection."""
    with http.ApiClient() as api:
        collection = api.post(PATH, {"name": name, "title": title, "description": description})
    return _print_collection(collection, as_json)


@collections.command("update")
@collections.command("change", hidden=True)
def update_collection(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="New name; keys are granted names.")] = None,
    title: Annotated[str | None, typer.Option(help="Title for people.")] = None,
    description: Annotated[str | None, typer.Option(help="Purpose of the collection.")] = None,
    as_json: AsJson = False,
) -> int:
    """Rename or describe a collection."""
    given = {"name": new_name, "title": title, "description": description}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise CliExit(exit_codes.USAGE, "nothing to update: give --name, --title or --description")
    with http.ApiClient() as api:
        return _print_collection(api.patch(f"{PATH}/{name}", body), as_json)


@collections.command("delete")
def delete_collection(
    name: Name,
    documents: Annotated[
        Literal["keep", "delete"] | None,
        typer.Option(help="Keep or delete its documents; required unless it is empty."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until its documents are kept or deleted.")] = False,
    as_json: AsJson = False,
) -> int:
    """Delete a collection: at once if it is empty, else by a job."""
    with http.ApiClient() as api:
        job = api.delete(f"{PATH}/{name}", documents=documents)
    if job is not None:
        return follow_jobs.follow_started(job, wait=wait, as_json=as_json)
    if as_json:
        output.emit({"deleted": name})
    else:
        output.out.print(f"{output.plain(name)} deleted")
    return exit_codes.OK


def _print_collection(collection: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(collection)
        return exit_codes.OK
    output.out.print(f"[bold]{output.plain(collection['name'])}[/] {output.plain(collection['title'])}")
    if collection["description"]:
        output.out.print(f"  {output.plain(collection['description'])}")
    searchable = f"{collection['documents_indexed']} searchable, {collection['chunks']} chunks"
    output.out.print(f"  {collection['documents']} documents, {searchable}")
    return exit_codes.OK
