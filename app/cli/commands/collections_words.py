"""The words of `millrace collections` and their options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli.exit_codes import EXITS

collections = typer.Typer(
    help="Collections: named sets of documents, to be searched and granted apart.",
    no_args_is_help=True,
    epilog=EXITS,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
Name = Annotated[str, typer.Argument(help="The collection's name.", metavar="NAME")]


@collections.command("list")
def collections_list(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50, as_json: Json = False
) -> int:
    """Collections by name, with what is in each."""
    from app.cli.commands import collections as command

    return command.show_list(limit=limit, as_json=as_json)


@collections.command("show")
def collections_show(name: Name, as_json: Json = False) -> int:
    """One collection."""
    from app.cli.commands import collections as command

    return command.show_one(name, as_json=as_json)


@collections.command("create")
def collections_create(
    name: Name,
    title: Annotated[str, typer.Option(help="For people.")] = "",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: Json = False,
) -> int:
    """Make a collection."""
    from app.cli.commands import collections as command

    return command.create(name, title=title, description=description, as_json=as_json)


@collections.command("change")
def collections_change(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="Its new name; keys go by names.")] = None,
    title: Annotated[str | None, typer.Option(help="For people.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    as_json: Json = False,
) -> int:
    """Rename or describe a collection."""
    from app.cli.commands import collections as command

    return command.change(name, new_name=new_name, title=title, description=description, as_json=as_json)


@collections.command("delete")
def collections_delete(
    name: Name,
    documents: Annotated[
        Literal["keep", "delete"] | None, typer.Option(help="What becomes of its documents; needed where it has some.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until its documents are dealt with.")] = False,
    as_json: Json = False,
) -> int:
    """Delete a collection, with or without its documents."""
    from app.cli.commands import collections as command

    return command.delete(name, documents=documents, wait=wait, as_json=as_json)
