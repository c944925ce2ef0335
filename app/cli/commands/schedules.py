"""`millrace schedules`: what is started again and again."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.http import Server
from app.cli.exit_codes import Quit


def show_list(*, kind: str | None, limit: int, as_json: bool) -> int:
    """In the order of their making."""
    with Server() as server:
        page = server.get("/api/schedules", kind=kind, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("id", "name", "kind", "when", "next", "last", "by", box=None, pad_edge=False)
    for one in page["data"]:
        upcoming = "[yellow]paused[/]" if one["paused_at"] else str(one["next_at"] or "never")[:19]
        table.add_row(
            one["id"],
            output.text(one["name"]),
            output.text(one["kind"]),
            output.text(_when(one)),
            upcoming,
            str(one["last_at"] or "")[:19],
            one["source"],
        )
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def _when(one: dict[str, Any]) -> str:
    return f"every {one['every_s']} s" if one["every_s"] else f"{one['cron']} {one['timezone']}"


def show_one(schedule_id: str, *, as_json: bool) -> int:
    """With its next times, and what became of its last ticks."""
    with Server() as server:
        return _shown(server.get(f"/api/schedules/{schedule_id}"), as_json)


def _shown(one: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(one)
        return exit_codes.OK
    paused = "  [yellow]paused[/]" if one["paused_at"] else ""
    output.out.print(f"[bold]{output.text(one['name'])}[/] {one['id']}  {output.text(_when(one))}{paused}")
    output.out.print(f"  {'starts':<8} {output.text(one['kind'])} {output.text(json.dumps(one['payload']))}")
    output.out.print(f"  {'late':<8} {one['catch_up']}, overlap {one['overlap']}")
    for time in one["next"]:
        output.out.print(f"  {'next':<8} {time}")
    for tick in one["ticks"]:
        told = " ".join(str(part) for part in (tick["outcome"], tick["job_id"], tick["note"]) if part)
        output.out.print(f"  {tick['at']} {output.text(told)}")
    return exit_codes.OK


def create(
    name: str, kind: str, payload: str, *, cron: str | None, every_s: int | None, as_json: bool, **policies: str
) -> int:
    """Made, and shown with its next times."""
    try:
        body = json.loads(payload)
    except ValueError as error:
        raise Quit(exit_codes.BAD_USE, f"the payload is no JSON: {error}") from error
    when = {"cron": cron} if cron is not None else {"every_s": every_s}
    with Server() as server:
        made = server.post("/api/schedules", {"name": name, "kind": kind, "payload": body, **when, **policies})
    return _shown(made, as_json)


def turn(schedule_id: str, what: str, *, as_json: bool) -> int:
    """Pause or resume it."""
    with Server() as server:
        return _shown(server.post(f"/api/schedules/{schedule_id}/{what}"), as_json)


def run_now(schedule_id: str, *, as_json: bool) -> int:
    """The job that was started."""
    with Server() as server:
        job = server.post(f"/api/schedules/{schedule_id}/run")
    if as_json:
        output.emit(job)
    else:
        output.out.print(f"{output.state(job['state'])}  {job['id']}")
    return exit_codes.OK


def delete(schedule_id: str, *, as_json: bool) -> int:
    """Its jobs stay."""
    with Server() as server:
        server.delete(f"/api/schedules/{schedule_id}")
    if as_json:
        output.emit({"deleted": schedule_id})
    return exit_codes.OK
