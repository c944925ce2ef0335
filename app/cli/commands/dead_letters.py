"""`millrace dead-letters`: failed jobs, grouped by fault; retry or discard many at once."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.lazy import http, output
from app.cli.options import AsJson, DryRun, new_group

MAX_ERROR_LETTERS = 80

dead_letters = new_group("Dead letters: failed jobs that were neither retried nor discarded.")

Kind = Annotated[str | None, typer.Option("--kind", help="Only jobs of this kind.")]
Queue = Annotated[str | None, typer.Option("--queue", help="Only jobs of this queue.")]
Code = Annotated[str | None, typer.Option("--code", help="Only errors with this code.")]
Fingerprint = Annotated[
    str | None, typer.Option(help="Only this fault; `millrace dead-letters list` shows the fingerprints.")
]


@dead_letters.command("list")
def list_dead_letters(
    kind: Kind = None,
    queue: Queue = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Maximum number of groups.")] = 20,
    as_json: AsJson = False,
) -> int:
    """List failed jobs, one line for each fault."""
    with http.ApiClient() as api:
        page = api.get("/api/dead-letters", kind=kind, queue=queue, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("fingerprint", "jobs", "first seen", "last seen", "kinds", "error")
    for group in page["data"]:
        error = f"{group['error']['type']}: {group['error']['message']}".partition("\n")[0][:MAX_ERROR_LETTERS]
        seen = [str(group[name])[:19] for name in ("first_seen", "last_seen")]
        kinds = output.plain(", ".join(group["kinds"]))
        table.add_row(group["fingerprint"], str(group["count"]), *seen, kinds, output.plain(error))
    output.print_page(table, page)
    return exit_codes.OK


@dead_letters.command("retry")
def retry_dead_letters(
    fingerprint: Fingerprint = None,
    kind: Kind = None,
    queue: Queue = None,
    code: Code = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Retry all dead letters that match the options."""
    filters = {"fingerprint": fingerprint, "kind": kind, "queue": queue, "error_code": code}
    return _start_bulk_job("retry", filters, dry_run, as_json)


@dead_letters.command("discard")
def discard_dead_letters(
    fingerprint: Fingerprint = None,
    kind: Kind = None,
    queue: Queue = None,
    code: Code = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Remove all jobs that match the options from the dead letters."""
    filters = {"fingerprint": fingerprint, "kind": kind, "queue": queue, "error_code": code}
    return _start_bulk_job("discard", filters, dry_run, as_json)


def _start_bulk_job(action: str, filters: dict[str, str | None], dry_run: bool, as_json: bool) -> int:
    given = {name: value for name, value in filters.items() if value is not None}
    with http.ApiClient() as api:
        result = api.post("/api/jobs:bulk", {"action": action, "filter": given, "dry_run": dry_run})
    if as_json:
        output.emit(result)
    elif dry_run:
        kinds = ", ".join(f"{number} {kind}" for kind, number in result["kinds"].items())
        output.out.print(f"{result['matched']} jobs{output.plain(f': {kinds}' if kinds else '')}")
    else:
        state = output.style_state(result["state"])
        output.out.print(f"{state}  {result['id']}  (millrace jobs follow {result['id']})")
    return exit_codes.OK
