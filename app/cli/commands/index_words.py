"""The words of `millrace index`: what is to be indexed, or the index itself."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from app.cli.exit_codes import EXITS

DEFAULT = "add"


class OrTargets(TyperGroup):
    """`millrace index FOLDER` is `millrace index add FOLDER`; a folder named as a command is written ./verify."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


index = typer.Typer(
    cls=OrTargets,
    help="Index pages, files and folders; or look after the index.",
    no_args_is_help=True,
    epilog=EXITS,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
Name = Annotated[str, typer.Argument(help="The generation's name, as `millrace index generations` shows it.")]
Wait = Annotated[bool, typer.Option(help="Watch the job to its end.")]


@index.command(DEFAULT)
def index_add(
    targets: Annotated[list[str], typer.Argument(help="Files, folders or http(s) addresses.", metavar="TARGET...")],
    wait: Annotated[bool, typer.Option(help="Watch every job to its end.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to watch.")] = 600,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for every document; may be given again.")] = None,
    as_json: Json = False,
) -> int:
    """Index pages, files and folders; one job each. The word may be left out."""
    from app.cli.commands import index as command

    return command.run(targets, wait=wait, timeout_s=timeout_s, tags=tag or [], as_json=as_json)


@index.command("state")
def index_state(as_json: Json = False) -> int:
    """Which engine answers, and how far behind it is."""
    from app.cli.commands import search_index as command

    return command.state(as_json=as_json)


@index.command("verify")
def index_verify(
    repair: Annotated[bool, typer.Option(help="Write again what is not the same.")] = False, as_json: Json = False
) -> int:
    """Prove that rows, vectors and postings are the same; fails where they are not."""
    from app.cli.commands import search_index as command

    return command.verify(repair=repair, as_json=as_json)


@index.command("generations")
def index_generations(as_json: Json = False) -> int:
    """The models whose vectors are kept, the one that is searched first."""
    from app.cli.commands import search_index as command

    return command.generations(as_json=as_json)


@index.command("build")
def index_build(wait: Wait = False, as_json: Json = False) -> int:
    """Make the vectors of the next embedder for everything, beside those that are searched."""
    from app.cli.commands import search_index as command

    return command.start("generations/build", {}, wait=wait, as_json=as_json)


@index.command("compare")
def index_compare(
    first: Name,
    second: Name,
    query: Annotated[list[str] | None, typer.Option(help="What to ask; may be given again.")] = None,
    as_json: Json = False,
) -> int:
    """Ask two generations the same questions, and say how alike their answers are."""
    from app.cli.commands import search_index as command

    return command.compare(first, second, queries=query or [], as_json=as_json)


@index.command("swap")
def index_swap(name: Name, wait: Wait = False, as_json: Json = False) -> int:
    """Search this generation from now on; the one before is kept."""
    from app.cli.commands import search_index as command

    return command.start("generations/swap", {"name": name}, wait=wait, as_json=as_json)


@index.command("rollback")
def index_rollback(wait: Wait = False, as_json: Json = False) -> int:
    """Search the generation before again."""
    from app.cli.commands import search_index as command

    return command.start("generations/rollback", {}, wait=wait, as_json=as_json)


@index.command("drop")
def index_drop(name: Name, wait: Wait = False, as_json: Json = False) -> int:
    """Delete the vectors of a generation that is not searched."""
    from app.cli.commands import search_index as command

    return command.start("generations/drop", {"name": name}, wait=wait, as_json=as_json)


@index.command("rebuild")
def index_rebuild(wait: Wait = False, as_json: Json = False) -> int:
    """Build the index anew; the one in use serves until it is whole."""
    from app.cli.commands import search_index as command

    return command.start("rebuild", {}, wait=wait, as_json=as_json)
