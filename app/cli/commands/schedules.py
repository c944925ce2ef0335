"""`millrace schedules`: jobs that start again and again."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import http, output
from app.cli.options import AsJson, Limit, new_group

PATH = "/api/schedules"

schedules = new_group("Schedules: list, show, create, pause, resume, run, delete.")

ScheduleId = Annotated[str, typer.Argument(help="Id of the schedule.", metavar="ID")]


@schedules.command("list")
def list_schedules(
    kind: Annotated[str | None, typer.Option(help="Only schedules that start this kind.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> int:
    """List schedules with their next times, the oldest first."""
    with http.ApiClient() as api:
        page = api.get(PATH, kind=kind, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("id", "name", "kind", "when", "next", "last", "by")
    for schedule in page["data"]:
        upcoming = "[yellow]paused[/]" if schedule["paused_at"] else str(schedule["next_at"] or "never")[:19]
        names = (schedule["name"], schedule["kind"], _format_rule(schedule))
        last = str(schedule["last_at"] or "")[:19]
        table.add_row(schedule["id"], *map(output.plain, names), upcoming, last, schedule["source"])
    output.print_page(table, page)
    return exit_codes.OK


@schedules.command("show")
def show_schedule(schedule_id: ScheduleId, as_json: AsJson = False) -> int:
    """Show a schedule with its next five times and its last ticks."""
    with http.ApiClient() as api:
        return _print_schedule(api.get(f"{PATH}/{schedule_id}"), as_json)


@schedules.command("create")
def create_schedule(
    name: Annotated[str, typer.Argument(help="Name of the schedule.")],
    kind: Annotated[str, typer.Argument(help="Kind of job that it starts.")],
    payload: Annotated[str, typer.Argument(help="Payload of the job as JSON.", metavar="JSON")] = "{}",
    cron: Annotated[str | None, typer.Option(help="Minute, hour, day, month, weekday: '30 2 * * 1-5'.")] = None,
    every_s: Annotated[int | None, typer.Option("--every", metavar="SECONDS", help="Instead of --cron.")] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of --cron.")] = "UTC",
    catch_up: Annotated[str, typer.Option(help="For missed ticks: skip, once or all.")] = "once",
    overlap: Annotated[str, typer.Option(help="While an earlier job is open: skip, queue or replace.")] = "skip",
    as_json: AsJson = False,
) -> int:
    """Create a schedule for a kind of job, and show its next times."""
    try:
        body = {"name": name, "kind": kind, "payload": json.loads(payload)}
    except ValueError as error:
        raise CliExit(exit_codes.USAGE, f"the payload is not JSON: {error}") from error
    rule = {"cron": cron} if cron is not None else {"every_s": every_s}
    policies = {"timezone": timezone, "catch_up": catch_up, "overlap": overlap}
    with http.ApiClient() as api:
        return _print_schedule(api.post(PATH, {**body, **rule, **policies}), as_json)


@schedules.command("pause")
def pause_schedule(schedule_id: ScheduleId, as_json: AsJson = False) -> int:
    """Start no jobs until the schedule is resumed."""
    with http.ApiClient() as api:
        return _print_schedule(api.post(f"{PATH}/{schedule_id}/pause"), as_json)


@schedules.command("resume")
def resume_schedule(schedule_id: ScheduleId, as_json: AsJson = False) -> int:
    """Continue with the next time from now."""
    with http.ApiClient() as api:
        return _print_schedule(api.post(f"{PATH}/{schedule_id}/resume"), as_json)


@schedules.command("run")
def run_schedule(schedule_id: ScheduleId, as_json: AsJson = False) -> int:
    """Start the schedule's job now."""
    with http.ApiClient() as api:
        job = api.post(f"{PATH}/{schedule_id}/run")
    output.print_job(job, as_json)
    return exit_codes.OK


@schedules.command("delete")
def delete_schedule(schedule_id: ScheduleId, as_json: AsJson = False) -> int:
    """Delete a schedule; its jobs stay."""
    with http.ApiClient() as api:
        api.delete(f"{PATH}/{schedule_id}")
    if as_json:
        output.emit({"deleted": schedule_id})
    return exit_codes.OK


def _format_rule(schedule: dict[str, Any]) -> str:
    if schedule["every_s"]:
        return f"every {schedule['every_s']} s"
    return f"{schedule['cron']} {schedule['timezone']}"


def _print_schedule(schedule: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(schedule)
        return exit_codes.OK
    paused = "  [yellow]paused[/]" if schedule["paused_at"] else ""
    rule = output.plain(_format_rule(schedule))
    output.out.print(f"[bold]{output.plain(schedule['name'])}[/] {schedule['id']}  {rule}{paused}")
    payload = output.plain(json.dumps(schedule["payload"]))
    output.out.print(f"  {'starts':<8} {output.plain(schedule['kind'])} {payload}")
    output.out.print(f"  {'late':<8} {schedule['catch_up']}, overlap {schedule['overlap']}")
    for time in schedule["next"]:
        output.out.print(f"  {'next':<8} {time}")
    for tick in schedule["ticks"]:
        parts = " ".join(str(part) for part in (tick["outcome"], tick["job_id"], tick["note"]) if part)
        output.out.print(f"  {tick['at']} {output.plain(parts)}")
    return exit_codes.OK
