"""The words of `millrace dead` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

dead = typer.Typer(
    help="Dead letters: what failed and waits for a person.", no_args_is_help=True, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]


DeadKind = Annotated[str | None, typer.Option("--kind", help="Only jobs of this kind.")]
DeadQueue = Annotated[str | None, typer.Option("--queue", help="Only jobs of this queue.")]
DeadCode = Annotated[str | None, typer.Option("--code", help="Only errors with this code.")]
Fingerprint = Annotated[str | None, typer.Option(help="Only this fault; `millrace dead list` shows them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be touched, and touch nothing.")]


@dead.command("retry")
def dead_retry(
    fingerprint: Fingerprint = None,
    kind: DeadKind = None,
    queue: DeadQueue = None,
    code: DeadCode = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Try all dead letters again that the options name."""
    from app.cli.commands import reasons as command

    wanted = {"fingerprint": fingerprint, "kind": kind, "queue": queue, "error_code": code}
    return command.many("retry", wanted, dry_run=dry_run, as_json=as_json)


@dead.command("discard")
def dead_discard(
    fingerprint: Fingerprint = None,
    kind: DeadKind = None,
    queue: DeadQueue = None,
    code: DeadCode = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Put all dead letters away that the options name."""
    from app.cli.commands import reasons as command

    wanted = {"fingerprint": fingerprint, "kind": kind, "queue": queue, "error_code": code}
    return command.many("discard", wanted, dry_run=dry_run, as_json=as_json)


@dead.command("list")
def dead_list(
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many groups.")] = 20,
    as_json: Json = False,
) -> int:
    """Failed jobs, those of the same fault in one line."""
    from app.cli.commands import reasons as command

    return command.dead(kind=kind, queue=queue, limit=limit, as_json=as_json)
