"""`millrace deliveries`: what senders of webhooks delivered here, and doing it again."""

from __future__ import annotations

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import Server

PATH = "/api/deliveries/in"


def show_list(*, source: str | None, outcome: str | None, limit: int, as_json: bool) -> int:
    """The newest first."""
    with Server() as server:
        page = server.get(PATH, source=source, outcome=outcome, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("id", "received", "source", "event", "outcome", "jobs", "repeats", box=None, pad_edge=False)
    for one in page["data"]:
        names = ("id", "received_at", "source", "event_type", "outcome", "jobs", "repeats")
        table.add_row(*(output.text(one[name]) for name in names))
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def show_one(delivery_id: str, *, as_json: bool) -> int:
    with Server() as server:
        found = server.get(f"{PATH}/{delivery_id}")
    if as_json:
        output.emit(found)
        return exit_codes.OK
    for name, value in found.items():
        output.out.print(f"[bold]{name}[/]  {output.text(value)}")
    return exit_codes.OK


def replay(delivery_id: str, *, as_json: bool) -> int:
    with Server() as server:
        said = server.post(f"{PATH}/{delivery_id}/replay")
    if as_json:
        output.emit(said)
    else:
        output.out.print(f"{said['status']}  {output.text(said['answer'])}")
    return exit_codes.OK
