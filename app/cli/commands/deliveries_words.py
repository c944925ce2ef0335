"""The words of `millrace deliveries` and their options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli.exit_codes import EXITS

deliveries = typer.Typer(
    help="What senders of webhooks delivered here.", no_args_is_help=True, epilog=EXITS, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
Which = Annotated[str, typer.Argument(help="The delivery's id.", metavar="ID")]


@deliveries.command("list")
def deliveries_list(
    source: Annotated[Literal["firecrawl", "changedetection"] | None, typer.Option(help="Only of this sender.")] = None,
    outcome: Annotated[Literal["accepted", "acknowledged"] | None, typer.Option(help="Only with this outcome.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    as_json: Json = False,
) -> int:
    """Deliveries, the newest first."""
    from app.cli.commands import deliveries as command

    return command.show_list(source=source, outcome=outcome, limit=limit, as_json=as_json)


@deliveries.command("show")
def deliveries_show(which: Which, as_json: Json = False) -> int:
    """One delivery, with its body where that is short."""
    from app.cli.commands import deliveries as command

    return command.show_one(which, as_json=as_json)


@deliveries.command("replay")
def deliveries_replay(which: Which, as_json: Json = False) -> int:
    """Do once more what a delivery asks for (scope admin)."""
    from app.cli.commands import deliveries as command

    return command.replay(which, as_json=as_json)
