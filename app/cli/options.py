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


class DefaultGroup(TyperGroup):
    """A group with a command that runs unless the first word is one of its commands."""

    default = ""

    @classmethod
    def of(cls, default: str) -> type[DefaultGroup]:
        """Return a group whose default is this command."""
        return type("DefaultGroup", (cls,), {"default": default})

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def new_group(help_text: str, cls: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """Return an empty command group."""
    return typer.Typer(cls=cls, help=help_text, no_args_is_help=True, epilog=EXIT_CODES_HELP, rich_markup_mode=None)
