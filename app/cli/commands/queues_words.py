"""The words of `millrace queues` and their options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli import exit_codes
from app.cli.exit_codes import EXITS, Quit

queues = typer.Typer(
    help="Queues: what waits; pause and resume a queue, a kind or a tenant.",
    no_args_is_help=True,
    epilog=EXITS,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
Kind = Annotated[bool, typer.Option("--kind", help="NAME is a kind of job.")]
Tenant = Annotated[bool, typer.Option("--tenant", help="NAME is a tenant.")]
Name = Annotated[str, typer.Argument(help="A queue's name, or what --kind or --tenant says.", metavar="NAME")]


@queues.command("list")
def queues_list(as_json: Json = False) -> int:
    """What waits in each queue, how long, and who serves it."""
    from app.cli.commands import queues as command

    return command.show(as_json=as_json)


@queues.command("pause")
def queues_pause(
    name: Name,
    kind: Kind = False,
    tenant: Tenant = False,
    reason: Annotated[str | None, typer.Option(help="Why, for those who wonder later.")] = None,
    as_json: Json = False,
) -> int:
    """Start no more jobs; what runs goes on, what waits keeps its place."""
    from app.cli.commands import queues as command

    return command.pause(_scope(kind, tenant), name, reason=reason, as_json=as_json)


@queues.command("resume")
def queues_resume(name: Name, kind: Kind = False, tenant: Tenant = False, as_json: Json = False) -> int:
    """Let jobs start again."""
    from app.cli.commands import queues as command

    return command.resume(_scope(kind, tenant), name, as_json=as_json)


def _scope(kind: bool, tenant: bool) -> Literal["queues", "kinds", "tenants"]:
    if kind and tenant:
        raise Quit(exit_codes.BAD_USE, "--kind and --tenant do not go together")
    return "kinds" if kind else "tenants" if tenant else "queues"
