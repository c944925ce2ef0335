"""`millrace index`: index documents; check, rebuild and switch the search index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import documents, follow_jobs, http, output, wait_for_jobs
from app.cli.options import AsJson, DefaultGroup, new_group

PATH = "/api/index"
DEFAULT_COMMAND = "add"
MAX_WAIT_S = 6 * 3600.0
# State of a file that the server refused while it accepted others.
REFUSED = "refused"


class TargetGroup(DefaultGroup):
    """Run `millrace index FOLDER` as `millrace index add FOLDER`; a folder with a command's name is ./verify."""

    default = DEFAULT_COMMAND

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        return super().parse_args(ctx, args or ["--help"])


index = new_group("Index pages, files and folders; maintain the search index.", cls=TargetGroup)

Name = Annotated[str, typer.Argument(help="Name of the generation; `millrace index generations` lists them.")]
Wait = Annotated[bool, typer.Option(help="Follow the job to its end.")]


@index.command(DEFAULT_COMMAND)
def add_documents(
    targets: Annotated[
        list[str], typer.Argument(help="Files, folders, http(s) addresses, or - for stdin.", metavar="TARGET...")
    ],
    wait: Annotated[bool, typer.Option(help="Follow every job to its end.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Maximum time to wait.")] = 600,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for every document; repeatable.")] = None,
    name: Annotated[
        str, typer.Option(help="Name of the document on stdin; its suffix tells the type.", metavar="NAME")
    ] = "stdin.md",
    as_json: AsJson = False,
) -> int:
    """Index pages, files and folders, one job each. The word `add` may be omitted."""
    with http.ApiClient() as api, documents.stdin_folder() as folder:
        targets = [str(documents.store_stdin(folder, name)) if target == "-" else target for target in targets]
        requests = [request for target in targets for request in documents.list_requests(target, tag or [])]
        started, refused = _send(api, requests)
        if wait:
            ended = wait_for_jobs.wait_for_jobs(api, started, timeout_s=timeout_s)
        else:
            ended = [request.job for request in started]
    for request, job in zip(started, ended, strict=True):
        _print_document(request.name, job, as_json)
    for request in refused:
        _print_document(request.name, request.job, as_json)
    return exit_codes.FAILED if refused or any(_has_failed(job) for job in ended) else exit_codes.OK


def _send(
    api: http.ApiClient, requests: Sequence[tuple[str, dict[str, Any]]]
) -> tuple[list[wait_for_jobs.StartedJob], list[wait_for_jobs.StartedJob]]:
    """Send all requests; return the started jobs and the refused files. A single refused request raises CliExit."""
    started, refused = [], []
    with output.new_progress() as bars:
        bar = bars.add_task("[bold]sending[/]", total=len(requests), stage="")
        for number, (name, body) in enumerate(requests):
            bars.update(bar, completed=number, stage=f"{number}/{len(requests)}")
            try:
                started.append(wait_for_jobs.StartedJob(name, documents.send_request(api, body)))
            except CliExit as error:
                if len(requests) == 1 or error.code != exit_codes.USAGE:
                    raise
                job = {"id": "-", "state": REFUSED, "error": {"message": error.message}}
                refused.append(wait_for_jobs.StartedJob(name, job))
    return started, refused


def _has_failed(job: dict[str, Any]) -> bool:
    """Return True if the job failed, or a line of its batch did."""
    return job["state"] in {"failed", "cancelled"} or bool((job.get("result") or {}).get("failed"))


def _print_document(name: str, job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit({"target": name, "job": job})
        return
    note = f"  {output.plain(job['error']['message'])}" if job.get("error") else ""
    if job.get("kind") == "documents.batch" and job.get("result"):
        result = job["result"]
        note = f"  {result['indexed']} indexed, {result['unchanged']} unchanged, {result['failed']} failed"
    output.out.print(f"{output.style_state(job['state'])}  {output.plain(name)}  [dim]{job['id']}[/]{note}")


@index.command("state")
def show_state(as_json: AsJson = False) -> int:
    """Show which engine answers searches, and how far behind it is."""
    with http.ApiClient() as api:
        state = api.get(f"{PATH}/state")
    if as_json:
        output.emit(state)
        return exit_codes.OK
    behind = state["behind"]
    lag = f"{behind['changes']} changes behind, {behind['seconds']:g} s" if behind["changes"] else "up to date"
    analysis = f", {state['outdated']} passages to analyse again" if state.get("outdated") else ""
    output.out.print(f"{output.plain(state['engine'])}  {output.plain(state['model'])}  {lag}{analysis}")
    return exit_codes.OK


@index.command("verify")
def verify_index(
    repair: Annotated[bool, typer.Option(help="Write entries that differ again.")] = False, as_json: AsJson = False
) -> int:
    """Check that rows, vectors and postings agree; fails if they differ."""
    result = _run_job("verify", {"repair": repair})
    if as_json:
        output.emit(result)
    else:
        _print_verification(result)
    return exit_codes.OK if result["ok"] else exit_codes.FAILED


def _print_verification(result: dict[str, Any]) -> None:
    counts = ", ".join(f"{result[name]} {name}" for name in ("documents", "chunks", "vectors", "postings"))
    output.out.print(f"{result['engine']}: {counts}")
    for name in ("missing", "extra", "different"):
        ids = result[name]
        if ids:
            output.out.print(f"  {name}: {', '.join(map(str, ids))}")
    output.out.print("  no differences" if result["ok"] else f"  {result['repaired']} are written again")


@index.command("generations")
def list_generations(as_json: AsJson = False) -> int:
    """List the models whose vectors are stored, the active one first."""
    with http.ApiClient() as api:
        page = api.get(f"{PATH}/generations")
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("generation", "dimensions", "state", "since")
    for generation in page["data"]:
        name, dimension = output.plain(generation["name"]), str(generation["dimension"])
        table.add_row(name, dimension, generation["state"], generation["changed_at"] or "")
    output.print_table(table)
    return exit_codes.OK


@index.command("build")
def build_generation(wait: Wait = False, as_json: AsJson = False) -> int:
    """Compute the vectors of the next embedder, while searches use the active generation."""
    return _start_job("generations/build", {}, wait, as_json)


@index.command("compare")
def compare_generations(
    first: Name,
    second: Name,
    query: Annotated[list[str] | None, typer.Option(help="A query to compare; repeatable.")] = None,
    as_json: AsJson = False,
) -> int:
    """Run the same queries on two generations, and compare the results."""
    result = _run_job("generations/compare", {"first": first, "second": second, "queries": query or []})
    if as_json:
        output.emit(result)
        return exit_codes.OK
    output.out.print(
        f"{result['queries']} queries: {result['overlap']:.0%} of the shown documents are the same, "
        f"{result['same_first']:.0%} of the first ones"
    )
    return exit_codes.OK


@index.command("swap")
def swap_generation(name: Name, wait: Wait = False, as_json: AsJson = False) -> int:
    """Make a generation the active one; the one before is kept."""
    return _start_job("generations/swap", {"name": name}, wait, as_json)


@index.command("rollback")
def roll_back_generation(wait: Wait = False, as_json: AsJson = False) -> int:
    """Make the previous generation the active one again."""
    return _start_job("generations/rollback", {}, wait, as_json)


@index.command("drop")
def drop_generation(name: Name, wait: Wait = False, as_json: AsJson = False) -> int:
    """Delete the vectors of a generation that is not active."""
    return _start_job("generations/drop", {"name": name}, wait, as_json)


@index.command("rebuild")
def rebuild_index(wait: Wait = False, as_json: AsJson = False) -> int:
    """Rebuild the index; the current one answers searches until the new one is complete."""
    return _start_job("rebuild", {}, wait, as_json)


def _start_job(path: str, body: dict[str, Any], wait: bool, as_json: bool) -> int:
    with http.ApiClient() as api:
        job = api.post(f"{PATH}/{path}", body)
    return follow_jobs.follow_started(job, wait=wait, as_json=as_json)


def _run_job(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the result of the job. Raises CliExit unless it succeeds."""
    with http.ApiClient() as api:
        job = api.post(f"{PATH}/{path}", body)
        [ended] = wait_for_jobs.wait_for_jobs(api, [wait_for_jobs.StartedJob(path, job)], timeout_s=MAX_WAIT_S)
    result: dict[str, Any] | None = ended.get("result")
    if result is None:
        message = (ended.get("error") or {}).get("message")
        raise CliExit(exit_codes.FAILED, f"job {job['id']} {ended['state']}: {message}")
    return result
