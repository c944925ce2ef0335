"""`millrace workers`: the processes that run jobs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.lazy import http, output
from app.cli.options import AsJson, Limit, new_group

ALL_STATES = ["running", "paused", "draining", "stopped", "dead"]

workers = new_group("Workers: the processes that run jobs.")

WorkerId = Annotated[str, typer.Argument(help="Id of the worker, or its first letters.", metavar="ID")]


@workers.command("list")
def list_workers(
    include_ended: Annotated[bool, typer.Option("--all", help="Include workers that have stopped or died.")] = False,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> int:
    """List workers with their running jobs."""
    with http.ApiClient() as api:
        page = api.get("/api/workers", state=ALL_STATES if include_ended else None, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("id", "state", "host", "pid", "queues", "running", "heartbeat")
    for worker in page["data"]:
        table.add_row(*_row(worker))
    output.print_page(table, page)
    return exit_codes.OK


def _row(worker: dict[str, Any]) -> list[str]:
    slots = f"{worker['running']}/{worker['threads']}"
    heartbeat = "never" if worker["silent_s"] is None else f"{worker['silent_s']:.0f} s ago"
    host = [output.plain(worker["host"]), str(worker["pid"]), output.plain(", ".join(worker["queues"]))]
    return [worker["id"], worker["state"], *host, slots, heartbeat]


@workers.command("pause")
def pause_worker(worker_id: WorkerId, as_json: AsJson = False) -> int:
    """Stop a worker from taking jobs; running jobs go on."""
    return _command(worker_id, "pause", as_json)


@workers.command("resume")
def resume_worker(worker_id: WorkerId, as_json: AsJson = False) -> int:
    """Let a paused worker take jobs again."""
    return _command(worker_id, "resume", as_json)


@workers.command("drain")
def drain_worker(worker_id: WorkerId, as_json: AsJson = False) -> int:
    """Let a worker finish its running jobs and then end."""
    return _command(worker_id, "drain", as_json)


def _command(worker_id: str, action: str, as_json: bool) -> int:
    with http.ApiClient() as api:
        worker_id = api.full_id("/api/workers", worker_id, state=ALL_STATES)
        worker = api.post(f"/api/workers/{worker_id}/{action}")
    if as_json:
        output.emit(worker)
    else:
        output.out.print(f"{worker['state']}  {worker['id']}  ({worker['running']} running)")
    return exit_codes.OK
