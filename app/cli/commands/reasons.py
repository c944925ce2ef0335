"""`millrace jobs explain|run-now|discard` and `millrace dead`: why jobs are where they are, and what to do."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import Server


def explain(job_id: str, *, as_json: bool) -> int:
    """The one reason, and the fix."""
    with Server() as server:
        said = server.get(f"/api/jobs/{job_id}/explain")
    if as_json:
        output.emit(said)
        return exit_codes.OK
    output.out.print(f"{output.state(said['state'])}  {said['job_id']}  [bold]{output.text(said['reason'])}[/]")
    output.out.print(f"  why  {output.text(said['message'])}")
    output.out.print(f"  fix  {output.text(said['fix'])}")
    return exit_codes.OK


def logs(job_id: str, *, level: str | None, attempt: int | None, as_json: bool) -> int:
    """Everything that the job's code has logged, a line each; with --json one object a line."""
    asked = {"level": level, "attempt": attempt, "limit": 200}
    with Server() as server:
        cursor = None
        while True:
            page = server.get(f"/api/jobs/{job_id}/logs", cursor=cursor, **asked)
            for line in page["data"]:
                output.emit(line) if as_json else _show_line(line)
            cursor = page["next_cursor"]
            if cursor is None:
                return exit_codes.OK


def _show_line(line: dict[str, Any]) -> None:
    style = {"warning": "yellow", "error": "red", "critical": "red", "debug": "dim"}.get(line["level"], "default")
    fields = dict(line["fields"])
    exception = fields.pop("exception", None)
    said = " ".join([line["event"], *(f"{name}={value}" for name, value in fields.items())])
    level = f"[{style}]{line['level']:<8}[/]"
    output.out.print(f"[dim]{line['at'][:23]}[/] {line['attempt']} {level} {output.text(said)}")
    if exception:
        output.out.print(output.text(exception))


def dead(*, kind: str | None, queue: str | None, limit: int, as_json: bool) -> int:
    """Failed jobs in groups of the same fault."""
    with Server() as server:
        page = server.get("/api/dead-letters", kind=kind, queue=queue, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("fingerprint", "jobs", "first seen", "last seen", "kinds", "error", box=None, pad_edge=False)
    for group in page["data"]:
        error = f"{group['error']['type']}: {group['error']['message']}".partition("\n")[0][:80]
        seen = [str(group[name])[:19] for name in ("first_seen", "last_seen")]
        kinds = output.text(", ".join(group["kinds"]))
        table.add_row(group["fingerprint"], str(group["count"]), *seen, kinds, output.text(error))
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def many(action: str, wanted: dict[str, str | None], *, dry_run: bool, as_json: bool) -> int:
    """Have a job do it to all that are wanted, or say what it would touch."""
    given = {name: value for name, value in wanted.items() if value is not None}
    with Server() as server:
        said = server.post("/api/jobs:bulk", {"action": action, "filter": given, "dry_run": dry_run})
    if as_json:
        output.emit(said)
    elif dry_run:
        kinds = ", ".join(f"{number} {kind}" for kind, number in said["kinds"].items())
        output.out.print(f"{said['matched']} jobs{output.text(f': {kinds}' if kinds else '')}")
    else:
        output.out.print(f"{output.state(said['state'])}  {said['id']}  (millrace jobs follow {said['id']})")
    return exit_codes.OK
