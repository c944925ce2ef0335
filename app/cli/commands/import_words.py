"""The words of `millrace import`: what is moved over from another system."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.exit_codes import EXITS

imports = typer.Typer(
    help="Move an installation of another system over.", no_args_is_help=True, epilog=EXITS, rich_markup_mode=None
)


@imports.callback()
def _group() -> None:
    """A group also while it has one command."""


@imports.command("pulse")
def import_pulse(
    url: Annotated[
        str, typer.Argument(help="The older service's PostgreSQL: postgresql://user@host/name.", metavar="DATABASE-URL")
    ],
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Whose it becomes.")] = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be taken, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")] = False,
) -> int:
    """Take crawls, pages and changes of the schema webhook; may be stopped, and run again for what is new."""
    from app.cli.commands import import_pulse as command

    return command.run(url, tenant=tenant, dry_run=dry_run, as_json=as_json)
