"""`millrace jobs`: list, show, follow, cancel and retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client.event_stream import FINAL
from app.cli.client.http import Server


def show_list(*, states: Sequence[str], kind: str | None, parent: str | None, limit: int, as_json: bool) -> int:
    """The newest jobs first."""
    with Server() as server:
        page = server.get("/api/jobs", state=",".join(states) or None, kind=kind, parent_id=parent, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("id", "kind", "state", "progress", "try", "created", box=None, pad_edge=False)
    for job in page["data"]:
        done = f"{_percent(job)}% {job['progress'].get('stage') or ''}".strip()
        tries = f"{job['attempt']}/{job['max_attempts']}"
        table.add_row(job["id"], job["kind"], output.state(job["state"]), done, tries, str(job["created_at"])[:19])
    output.out.print(table)
    if page.get("has_more"):
        output.out.print("[dim]and more: --limit[/]")
    return exit_codes.OK


def show_one(job_id: str, *, as_json: bool) -> int:
    """Everything about one job, each attempt with what became of it."""
    with Server() as server:
        job = server.get(f"/api/jobs/{job_id}")
    if as_json:
        output.emit(job)
        return exit_codes.OK
    output.out.print(f"[bold]{output.text(job['kind'])}[/] {job['id']}  {output.state(job['state'])}")
    names = ("queue", "document_id", "created_at", "started_at", "finished_at", "request_id")
    facts = {"progress": f"{_percent(job)}% {job['progress'].get('stage') or ''}", **{n: job.get(n) for n in names}}
    for name, value in facts.items():
        if value is not None:
            output.out.print(f"  {name:<12} {output.text(value)}")
    children = job.get("children") or {"total": 0}
    if children["total"]:
        told = ", ".join(f"{children[name]} {name}" for name in ("succeeded", "failed", "open"))
        output.out.print(f"  {'children':<12} {children['total']}: {told}")
    for attempt in job.get("attempts", []):
        _show_attempt(attempt)
    _show_error(job)
    return exit_codes.OK


def _show_attempt(attempt: dict[str, Any]) -> None:
    number = attempt.get("attempt") or attempt.get("fence")
    worker = attempt.get("worker") or {}
    where = f"{worker.get('host') or '?'} pid {worker.get('pid') or '?'}"
    error = (attempt.get("error") or {}).get("message")
    line = f"  attempt {number}: {attempt.get('outcome') or 'running'}, {where}, {attempt.get('started_at')}"
    output.out.print(output.text(line + (f": {error}" if error else "")))


def _show_error(job: dict[str, Any]) -> None:
    if job.get("error"):
        output.out.print(f"  [red]{output.text(job['error']['type'])}[/] {output.text(job['error']['message'])}")


def _percent(job: dict[str, Any]) -> int:
    return round(job["progress"].get("percent") or 0)


def cancel(job_id: str, *, as_json: bool) -> int:
    return _ask(job_id, "cancel", as_json)


def retry(job_id: str, *, as_json: bool) -> int:
    return _ask(job_id, "retry", as_json)


def run_now(job_id: str, *, as_json: bool) -> int:
    return _ask(job_id, "run-now", as_json)


def discard(job_id: str, *, as_json: bool) -> int:
    return _ask(job_id, "discard", as_json)


def _ask(job_id: str, what: str, as_json: bool) -> int:
    with Server() as server:
        job = server.post(f"/api/jobs/{job_id}/{what}")
    if as_json:
        output.emit(job)
        return exit_codes.OK
    asked = what == "cancel" and job["state"] not in FINAL
    output.out.print(f"{output.state(job['state'])}  {job['id']}{'  (asked to stop)' if asked else ''}")
    return exit_codes.OK
