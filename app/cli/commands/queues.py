"""`millrace queues`: what waits where, pause and resume."""

from __future__ import annotations

from typing import Literal

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import Server

Scope = Literal["queues", "kinds", "tenants"]

COUNTS = ("running", "scheduled", "retrying", "workers", "slots")


def show(*, as_json: bool) -> int:
    """Every queue in the order of service."""
    with Server() as server:
        page = server.get("/api/queues")
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("queue", "queued", "oldest", *COUNTS, "", box=None, pad_edge=False)
    for queue in page["data"]:
        counts = [str(queue[name]) for name in COUNTS]
        table.add_row(queue["name"], str(queue["queued"]), _age(queue["oldest_s"]), *counts, _pause(queue["paused"]))
    output.out.print(table)
    return exit_codes.OK


def _age(seconds: float) -> str:
    if seconds < 1:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _pause(paused: dict[str, str] | None) -> str:
    if paused is None:
        return ""
    reason = f": {output.text(paused['reason'])}" if paused.get("reason") else ""
    return f"[yellow]paused since {str(paused['at'])[:19]}{reason}[/]"


def pause(scope: Scope, name: str, *, reason: str | None, as_json: bool) -> int:
    """Start no more of these jobs until they are resumed."""
    return _say(scope, name, "pause", {"reason": reason} if reason else None, as_json)


def resume(scope: Scope, name: str, *, as_json: bool) -> int:
    """Let them start again."""
    return _say(scope, name, "resume", None, as_json)


def _say(scope: Scope, name: str, word: str, body: dict[str, str] | None, as_json: bool) -> int:
    with Server() as server:
        gate = server.post(f"/api/{scope}/{name}/{word}", body)
    if as_json:
        output.emit(gate)
        return exit_codes.OK
    output.out.print(f"{output.text(gate['name'])}  {_pause(gate['paused']) or 'open'}, {gate['running']} running")
    return exit_codes.OK
