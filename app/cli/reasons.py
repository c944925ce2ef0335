"""`millrace jobs explain|run-now|discard` and `millrace dead`: why jobs are where they are, and what to do."""

from __future__ import annotations

from rich.table import Table

from app.cli import exits, output
from app.cli.server import Server


def explain(job_id: str, *, as_json: bool) -> int:
    """The one reason, and the fix."""
    with Server() as server:
        said = server.get(f"/api/jobs/{job_id}/explain")
    if as_json:
        output.emit(said)
        return exits.OK
    output.out.print(f"{output.state(said['state'])}  {said['job_id']}  [bold]{output.text(said['reason'])}[/]")
    output.out.print(f"  why  {output.text(said['message'])}")
    output.out.print(f"  fix  {output.text(said['fix'])}")
    return exits.OK


def dead(*, kind: str | None, queue: str | None, limit: int, as_json: bool) -> int:
    """Failed jobs in groups of the same fault."""
    with Server() as server:
        page = server.get("/api/dead-letters", kind=kind, queue=queue, limit=limit)
    if as_json:
        output.emit(page)
        return exits.OK
    table = Table("fingerprint", "jobs", "first seen", "last seen", "kinds", "error", box=None, pad_edge=False)
    for group in page["data"]:
        error = f"{group['error']['type']}: {group['error']['message']}".partition("\n")[0][:80]
        seen = [str(group[name])[:19] for name in ("first_seen", "last_seen")]
        kinds = output.text(", ".join(group["kinds"]))
        table.add_row(group["fingerprint"], str(group["count"]), *seen, kinds, output.text(error))
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exits.OK
