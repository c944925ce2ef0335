"""The words of `millrace workers` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

workers = typer.Typer(help="Workers: who runs jobs.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]


@workers.command("list")
def workers_list(
    every: Annotated[bool, typer.Option("--all", help="Also those that have stopped or died.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 50,
    as_json: Json = False,
) -> int:
    """Who runs jobs."""
    from app.cli.commands import workers as command

    return command.show_list(every=every, limit=limit, as_json=as_json)


WorkerId = Annotated[str, typer.Argument(help="The worker's id.", metavar="ID")]


@workers.command("pause")
def workers_pause(worker_id: WorkerId, as_json: Json = False) -> int:
    """Let a worker take no more jobs; what runs goes on."""
    from app.cli.commands import workers as command

    return command.order(worker_id, "pause", as_json=as_json)


@workers.command("resume")
def workers_resume(worker_id: WorkerId, as_json: Json = False) -> int:
    """Let a paused worker take jobs again."""
    from app.cli.commands import workers as command

    return command.order(worker_id, "resume", as_json=as_json)


@workers.command("drain")
def workers_drain(worker_id: WorkerId, as_json: Json = False) -> int:
    """Let a worker finish what runs, and then end."""
    from app.cli.commands import workers as command

    return command.order(worker_id, "drain", as_json=as_json)
