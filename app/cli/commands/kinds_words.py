"""The words `millrace kinds` and `millrace jobs start` with their options; the work is in kinds.py."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
Payload = Annotated[
    str,
    typer.Argument(help="The payload as JSON, - for stdin, @FILE for a file; a list starts one each.", metavar="JSON"),
]


def kinds(
    name: Annotated[str | None, typer.Argument(help="Only this kind, with its schema.", metavar="KIND")] = None,
    as_json: Json = False,
) -> int:
    """The kinds of job that can be started here."""
    from app.cli.commands import kinds as command

    return command.show(name, as_json=as_json)


def start(
    kind: Annotated[str, typer.Argument(help="What to start; millrace kinds lists them.", metavar="KIND")],
    payload: Payload = "{}",
    due_at: Annotated[str | None, typer.Option("--due", metavar="TIME", help="Not before this, RFC 3339.")] = None,
    expires_at: Annotated[str | None, typer.Option("--expires", metavar="TIME", help="Not after this.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first within its queue.")] = None,
    unique_key: Annotated[
        str | None, typer.Option("--key", help="While a job with this key is open, that one.")
    ] = None,
    webhook_url: Annotated[str | None, typer.Option("--webhook", metavar="URL", help="Where the end is told.")] = None,
    wait: Annotated[bool, typer.Option(help="Watch what was started to its end.")] = False,
    timeout_s: Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="How long to watch.")] = None,
    as_json: Json = False,
) -> int:
    """Start a job of any open kind, or a list of them in one transaction."""
    from app.cli.commands import kinds as command

    options = {
        "due_at": due_at,
        "expires_at": expires_at,
        "priority": priority,
        "unique_key": unique_key,
        "webhook_url": webhook_url,
    }
    return command.start(kind, payload, options, wait=wait, timeout_s=timeout_s, as_json=as_json)
