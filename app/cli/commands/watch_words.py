"""The words of `millrace watch` and their options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli.exit_codes import EXITS

watch = typer.Typer(
    help="Pages that changedetection.io watches for us.", no_args_is_help=True, epilog=EXITS, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is done there.")]


@watch.command("add")
def watch_add(
    urls: Annotated[list[str], typer.Argument(help="Addresses of pages.", metavar="URL…")],
    wait: Wait = False,
    as_json: Json = False,
) -> int:
    """Have pages watched; those that are not known yet are fetched."""
    from app.cli.commands import watch as command

    return command.add(urls, wait=wait, as_json=as_json)


@watch.command("list")
def watch_list(
    state: Annotated[
        Literal["wanted", "present", "unwanted", "removed", "failed"] | None, typer.Option(help="Only these.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    as_json: Json = False,
) -> int:
    """Watched pages, the newest first, and what is wrong with them."""
    from app.cli.commands import watch as command

    return command.show_list(state=state, limit=limit, as_json=as_json)


@watch.command("remove")
def watch_remove(
    which: Annotated[str, typer.Argument(help="The page's address, or its document's id.", metavar="URL|ID")],
    wait: Wait = False,
    as_json: Json = False,
) -> int:
    """Watch a page no more; it stays indexed."""
    from app.cli.commands import watch as command

    return command.remove(which, wait=wait, as_json=as_json)


@watch.command("sync")
def watch_sync(wait: Wait = False, as_json: Json = False) -> int:
    """Give each indexed page its watch, and remove those of pages that are gone; a schedule does so each minute."""
    from app.cli.commands import watch as command

    return command.sync(wait=wait, as_json=as_json)


@watch.command("template")
def watch_template(as_json: Json = False) -> int:
    """What a watch made by hand needs in order to tell us; it holds a token (scope admin)."""
    from app.cli.commands import watch as command

    return command.template(as_json=as_json)
