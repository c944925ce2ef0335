"""Options that several commands share, and the settings of every command group."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from app.cli.exit_codes import EXIT_CODES_HELP

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and errors as JSON on stderr.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the effect without changing anything.")]
WaitForJob = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")]
Limit = Annotated[int, typer.Option(min=1, max=100, help="Maximum number of rows.")]
LongLimit = Annotated[int, typer.Option(min=1, max=200, help="Maximum number of rows.")]


def new_group(help_text: str, cls: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """Return an empty command group."""
    return typer.Typer(cls=cls, help=help_text, no_args_is_help=True, epilog=EXIT_CODES_HELP, rich_markup_mode=None)
