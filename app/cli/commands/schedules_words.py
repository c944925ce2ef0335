"""The words of `millrace schedules` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

schedules = typer.Typer(
    help="Schedules: list, show, create, pause, resume, run, delete.", no_args_is_help=True, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors as JSON on stderr.")]
ScheduleId = Annotated[str, typer.Argument(help="The schedule's id.", metavar="ID")]


@schedules.command("list")
def schedules_list(
    kind: Annotated[str | None, typer.Option(help="Only those that start this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 50,
    as_json: Json = False,
) -> int:
    """All of them, each with its next time."""
    from app.cli.commands import schedules as command

    return command.show_list(kind=kind, limit=limit, as_json=as_json)


@schedules.command("show")
def schedules_show(schedule_id: ScheduleId, as_json: Json = False) -> int:
    """One schedule, its next five times and its last ticks."""
    from app.cli.commands import schedules as command

    return command.show_one(schedule_id, as_json=as_json)


@schedules.command("create")
def schedules_create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    kind: Annotated[str, typer.Argument(help="The kind of job it starts.")],
    payload: Annotated[str, typer.Argument(help="The job's payload, as JSON.", metavar="JSON")] = "{}",
    cron: Annotated[str | None, typer.Option(help="Minute, hour, day, month, weekday: '30 2 * * 1-5'.")] = None,
    every_s: Annotated[int | None, typer.Option("--every", metavar="SECONDS", help="Instead of --cron.")] = None,
    timezone: Annotated[str, typer.Option(help="The time zone of --cron.")] = "UTC",
    catch_up: Annotated[str, typer.Option(help="For ticks that were missed: skip, once or all.")] = "once",
    overlap: Annotated[str, typer.Option(help="While an earlier job is open: skip, queue or replace.")] = "skip",
    as_json: Json = False,
) -> int:
    """Start a kind of job again and again."""
    from app.cli.commands import schedules as command

    policies = {"timezone": timezone, "catch_up": catch_up, "overlap": overlap}
    return command.create(name, kind, payload, cron=cron, every_s=every_s, as_json=as_json, **policies)


@schedules.command("pause")
def schedules_pause(schedule_id: ScheduleId, as_json: Json = False) -> int:
    """Start nothing until it is resumed."""
    from app.cli.commands import schedules as command

    return command.turn(schedule_id, "pause", as_json=as_json)


@schedules.command("resume")
def schedules_resume(schedule_id: ScheduleId, as_json: Json = False) -> int:
    """Go on with the next time from now."""
    from app.cli.commands import schedules as command

    return command.turn(schedule_id, "resume", as_json=as_json)


@schedules.command("run")
def schedules_run(schedule_id: ScheduleId, as_json: Json = False) -> int:
    """Start its job now."""
    from app.cli.commands import schedules as command

    return command.run_now(schedule_id, as_json=as_json)


@schedules.command("delete")
def schedules_delete(schedule_id: ScheduleId, as_json: Json = False) -> int:
    """Delete it; its jobs stay."""
    from app.cli.commands import schedules as command

    return command.delete(schedule_id, as_json=as_json)
