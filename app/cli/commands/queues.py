"""`millrace queues`: waiting jobs by queue; pause and resume queues, kinds and tenants."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import http, output
from app.cli.options import AsJson, new_group

COUNTS = ("running", "scheduled", "retrying", "workers", "slots")

queues = new_group("Queues: waiting jobs; pause and resume a queue, a kind or a tenant.")

Kind = Annotated[bool, typer.Option("--kind", help="NAME is a kind of job.")]
Tenant = Annotated[bool, typer.Option("--tenant", help="NAME is a tenant.")]
Name = Annotated[str, typer.Argument(help="A queue; with --kind or --tenant a kind or a tenant.", metavar="NAME")]


@queues.command("list")
def list_queues(as_json: AsJson = False) -> int:
    """List queues in the order of service, with waiting jobs and workers."""
    with http.ApiClient() as api:
        page = api.get("/api/queues")
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("queue", "queued", "oldest", *COUNTS, "")
    for queue in page["data"]:
        counts = [str(queue[name]) for name in COUNTS]
        age, pause = _format_age(queue["oldest_s"]), _format_pause(queue["paused"])
        table.add_row(queue["name"], str(queue["queued"]), age, *counts, pause)
    output.print_table(table)
    return exit_codes.OK


@queues.command("pause")
def pause_queue(
    name: Name,
    kind: Kind = False,
    tenant: Tenant = False,
    reason: Annotated[str | None, typer.Option(help="Reason, shown to others.")] = None,
    as_json: AsJson = False,
) -> int:
    """Start no more jobs; running jobs go on, waiting jobs keep their order."""
    return _command(_scope(kind, tenant), name, "pause", {"reason": reason} if reason else None, as_json)


@queues.command("resume")
def resume_queue(name: Name, kind: Kind = False, tenant: Tenant = False, as_json: AsJson = False) -> int:
    """Let jobs start again."""
    return _command(_scope(kind, tenant), name, "resume", None, as_json)


def _scope(kind: bool, tenant: bool) -> Literal["queues", "kinds", "tenants"]:
    if kind and tenant:
        raise CliExit(exit_codes.USAGE, "--kind and --tenant exclude each other")
    return "kinds" if kind else "tenants" if tenant else "queues"


def _command(scope: str, name: str, action: str, body: dict[str, str] | None, as_json: bool) -> int:
    with http.ApiClient() as api:
        limit = api.post(f"/api/{scope}/{name}/{action}", body)
    if as_json:
        output.emit(limit)
        return exit_codes.OK
    state = _format_pause(limit["paused"]) or "open"
    output.out.print(f"{output.plain(limit['name'])}  {state}, {limit['running']} running")
    return exit_codes.OK


def _format_age(seconds: float) -> str:
    if seconds < 1:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _format_pause(paused: dict[str, str] | None) -> str:
    if paused is None:
        return ""
    reason = f": {output.plain(paused['reason'])}" if paused.get("reason") else ""
    return f"[yellow]paused since {str(paused['at'])[:19]}{reason}[/]"
