"""`millrace jobs`: list, show, start, follow, cancel and retry jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import follow_jobs, http, output
from app.cli.options import AsJson, Limit, new_group

PATH = "/api/jobs"
FACTS = ("queue", "document_id", "created_at", "started_at", "finished_at", "request_id")
FINAL_STATES = {"succeeded", "failed", "cancelled"}
LOG_PAGE_LINES = 200
LEVEL_STYLES = {"warning": "yellow", "error": "red", "critical": "red", "debug": "dim"}

jobs = new_group("Jobs: start, list, show, follow, explain, cancel, retry.")

JobId = Annotated[str, typer.Argument(help="Id of the job, or its first letters.", metavar="ID")]
Payload = Annotated[
    str,
    typer.Argument(
        help="Payload as JSON, - for stdin, @FILE for a file; a list starts one job per item.", metavar="JSON"
    ),
]


@jobs.command("start")
def start_jobs(
    kind: Annotated[str, typer.Argument(help="Kind of job; millrace kinds lists them.", metavar="KIND")],
    payload: Payload = "{}",
    due_at: Annotated[str | None, typer.Option("--due", metavar="TIME", help="Start not before, RFC 3339.")] = None,
    expires_at: Annotated[str | None, typer.Option("--expires", metavar="TIME", help="Start not after.")] = None,
    priority: Annotated[int | None, typer.Option(help="A higher number starts earlier within its queue.")] = None,
    unique_key: Annotated[
        str | None, typer.Option("--key", help="Return the open job with this key, if one exists.")
    ] = None,
    webhook_url: Annotated[str | None, typer.Option("--webhook", metavar="URL", help="Report the end here.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the started jobs to their end.")] = False,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Maximum time to wait.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Start a job of any open kind, or a list of them in one transaction."""
    payloads = _parse_payload(payload)
    given = {
        "due_at": due_at, "expires_at": expires_at, "priority": priority, "unique_key": unique_key,
        "webhook_url": webhook_url,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    with http.ApiClient() as api:
        if isinstance(payloads, list):
            bodies = [{"kind": kind, "payload": item, **options} for item in payloads]
            started = api.post(PATH, bodies)["data"]
        else:
            started = [api.post(PATH, {"kind": kind, "payload": payloads, **options})]
    if wait:
        return _wait([job["id"] for job in started], timeout_s, as_json)
    for job in started:
        output.print_job(job, as_json)
    return exit_codes.OK


def _parse_payload(payload: str) -> Any:
    """Parse the JSON of the argument, of stdin (-) or of a file (@name)."""
    try:
        if payload == "-":
            payload = sys.stdin.read()
        elif payload.startswith("@"):
            payload = Path(payload[1:]).read_text(encoding="utf-8")
        return json.loads(payload)
    except (OSError, UnicodeDecodeError) as error:
        raise CliExit(exit_codes.USAGE, f"the payload cannot be read: {error}") from error
    except ValueError as error:
        raise CliExit(exit_codes.USAGE, f"the payload is not JSON: {error}") from error


def _wait(job_ids: list[str], timeout_s: float | None, as_json: bool) -> int:
    code = follow_jobs.follow(job_ids, timeout_s=timeout_s, as_json=as_json)
    if not as_json:
        with http.ApiClient() as api:
            for result in [api.get(f"{PATH}/{job_id}").get("result") for job_id in job_ids]:
                if result is not None:
                    output.out.print(output.plain(json.dumps(result, ensure_ascii=False)))
    return code


@jobs.command("list")
def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; repeatable.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only children of this job.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> int:
    """List jobs, the newest first."""
    with http.ApiClient() as api:
        parent = None if parent is None else api.full_id(PATH, parent)
        page = api.get(PATH, state=",".join(state or []) or None, kind=kind, parent_id=parent, limit=limit)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("id", "kind", "state", "progress", "try", "created", "document")
    for job in page["data"]:
        tries, created = f"{job['attempt']}/{job['max_attempts']}", str(job["created_at"])[:19]
        state_text = output.style_state(job["state"])
        name = output.plain(job.get("document_name"))
        table.add_row(job["id"], job["kind"], state_text, _format_progress(job), tries, created, name)
    output.print_page(table, page)
    return exit_codes.OK


@jobs.command("show")
def show_job(job_id: JobId, as_json: AsJson = False) -> int:
    """Show a job with its attempts, payload and result."""
    with http.ApiClient() as api:
        job = api.get(f"{PATH}/{api.full_id(PATH, job_id)}")
    if as_json:
        output.emit(job)
        return exit_codes.OK
    output.out.print(f"[bold]{output.plain(job['kind'])}[/] {job['id']}  {output.style_state(job['state'])}")
    facts = {"progress": _format_progress(job), **{name: job.get(name) for name in FACTS}}
    for name, value in facts.items():
        if value is not None:
            output.out.print(f"  {name:<12} {output.plain(value)}")
    children = job.get("children") or {"total": 0}
    if children["total"]:
        counts = ", ".join(f"{children[name]} {name}" for name in ("succeeded", "failed", "open"))
        output.out.print(f"  {'children':<12} {children['total']}: {counts}")
    for attempt in job.get("attempts", []):
        _print_attempt(attempt)
    output.print_error(job)
    return exit_codes.OK


def _format_progress(job: dict[str, Any]) -> str:
    progress = job["progress"]
    return f"{round(progress.get('percent') or 0)}% {progress.get('stage') or ''}".strip()


def _print_attempt(attempt: dict[str, Any]) -> None:
    number = attempt.get("attempt") or attempt.get("fence")
    worker = attempt.get("worker") or {}
    where = f"{worker.get('host') or '?'} pid {worker.get('pid') or '?'}"
    error = (attempt.get("error") or {}).get("message")
    line = f"  attempt {number}: {attempt.get('outcome') or 'running'}, {where}, {attempt.get('started_at')}"
    output.out.print(output.plain(line + (f": {error}" if error else "")))


@jobs.command("follow")
def follow(
    job_ids: Annotated[list[str] | None, typer.Argument(help="Ids, or their first letters.", metavar="ID...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All jobs, until Ctrl-C.")] = False,
    kind: Annotated[str | None, typer.Option(help="With --all: only this kind, or shop.* for a prefix.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="With --all: only this state; repeatable.")] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Maximum time to follow.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Follow jobs until they end; exit code 0 only if all succeeded."""
    if everything == bool(job_ids):
        raise CliExit(exit_codes.USAGE, "give either ids of jobs or --all")
    if everything:
        return follow_jobs.follow_all(kinds=kind, states=state or [], timeout_s=timeout_s, as_json=as_json)
    with http.ApiClient() as api:
        job_ids = [api.full_id(PATH, job_id) for job_id in job_ids or []]
    return follow_jobs.follow(job_ids, timeout_s=timeout_s, as_json=as_json)


@jobs.command("explain")
def explain_job(job_id: JobId, as_json: AsJson = False) -> int:
    """Explain why a job is in its state, and how to fix that."""
    with http.ApiClient() as api:
        reason = api.get(f"{PATH}/{api.full_id(PATH, job_id)}/explain")
    if as_json:
        output.emit(reason)
        return exit_codes.OK
    state = output.style_state(reason["state"])
    output.out.print(f"{state}  {reason['job_id']}  [bold]{output.plain(reason['reason'])}[/]")
    output.out.print(f"  why  {output.plain(reason['message'])}")
    output.out.print(f"  fix  {output.plain(reason['fix'])}")
    return exit_codes.OK


@jobs.command("logs")
def show_logs(
    job_id: JobId,
    level: Annotated[str | None, typer.Option(help="Lines of this level and above, such as warning.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only lines of this try.")] = None,
    as_json: AsJson = False,
) -> int:
    """Show the log lines of the job's code; with --json one object a line."""
    filters = {"level": level, "attempt": attempt, "limit": LOG_PAGE_LINES}
    with http.ApiClient() as api:
        cursor, job_id = None, api.full_id(PATH, job_id)
        while True:
            page = api.get(f"{PATH}/{job_id}/logs", cursor=cursor, **filters)
            for line in page["data"]:
                output.emit(line) if as_json else _print_log_line(line)
            cursor = page["next_cursor"]
            if cursor is None:
                return exit_codes.OK


def _print_log_line(line: dict[str, Any]) -> None:
    style = LEVEL_STYLES.get(line["level"], "default")
    fields = dict(line["fields"])
    exception = fields.pop("exception", None)
    text = " ".join([line["event"], *(f"{name}={value}" for name, value in fields.items())])
    level = f"[{style}]{line['level']:<8}[/]"
    output.out.print(f"[dim]{line['at'][:23]}[/] {line['attempt']} {level} {output.plain(text)}")
    if exception:
        output.out.print(output.plain(exception))


@jobs.command("cancel")
def cancel_job(job_id: JobId, as_json: AsJson = False) -> int:
    """Ask a job to stop."""
    return _command(job_id, "cancel", as_json)


@jobs.command("retry")
def retry_job(job_id: JobId, as_json: AsJson = False) -> int:
    """Run a failed or cancelled job again."""
    return _command(job_id, "retry", as_json)


@jobs.command("run-now")
def run_job_now(job_id: JobId, as_json: AsJson = False) -> int:
    """Start a job now that waits for its due time or its next try."""
    return _command(job_id, "run-now", as_json)


@jobs.command("discard")
def discard_job(job_id: JobId, as_json: AsJson = False) -> int:
    """Remove a failed job from the dead letters."""
    return _command(job_id, "discard", as_json)


def _command(job_id: str, action: str, as_json: bool) -> int:
    with http.ApiClient() as api:
        job = api.post(f"{PATH}/{api.full_id(PATH, job_id)}/{action}")
    if as_json:
        output.emit(job)
        return exit_codes.OK
    is_stopping = action == "cancel" and job["state"] not in FINAL_STATES
    output.out.print(f"{output.style_state(job['state'])}  {job['id']}{'  (asked to stop)' if is_stopping else ''}")
    return exit_codes.OK
