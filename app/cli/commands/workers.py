"""`millrace workers`: list, pause, resume and drain."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import Server


def show_list(*, every: bool, limit: int, as_json: bool) -> int:
    """Who runs jobs, and how many."""
    states = ["running", "paused", "draining", "stopped", "dead"] if every else None
    with Server() as server:
        page = server.get("/api/workers", state=states, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("id", "state", "host", "pid", "queues", "running", "heard", box=None, pad_edge=False)
    for worker in page["data"]:
        table.add_row(*_row(worker))
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def _row(worker: dict[str, Any]) -> list[str]:
    slots = f"{worker['running']}/{worker['threads']}"
    heard = "never" if worker["silent_s"] is None else f"{worker['silent_s']:.0f} s ago"
    place = [output.text(worker["host"]), str(worker["pid"]), output.text(", ".join(worker["queues"]))]
    return [worker["id"], worker["state"], *place, slots, heard]


def order(worker_id: str, what: str, *, as_json: bool) -> int:
    with Server() as server:
        worker = server.post(f"/api/workers/{worker_id}/{what}")
    if as_json:
        output.emit(worker)
    else:
        output.out.print(f"{worker['state']}  {worker['id']}  ({worker['running']} running)")
    return exit_codes.OK
