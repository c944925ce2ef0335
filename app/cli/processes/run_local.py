"""Run the whole system on this machine: start, index and search the project's own pages, run until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from app.cli import exit_codes, output
from app.cli.client.documents import list_requests, send_request
from app.cli.client.http import ApiClient
from app.cli.client.profiles import local, settings
from app.cli.client.search_results import print_results
from app.cli.client.wait_for_jobs import StartedJob, wait_for_jobs
from app.cli.exit_codes import CliExit
from app.cli.local.schema import upgrade_schema
from app.cli.processes import leftovers
from app.cli.processes.local_install import check_address, prepare
from app.cli.processes.supervisor_client import TOP, Supervisor
from app.core import http
from app.core.errors import ConfigError
from app.core.process import hide_memory
from app.core.settings import Settings

MAX_START_S = 60.0
MAX_DEMO_S = 300.0
READY_PAUSE_S = 0.1
READY_TIMEOUT_S = 2.0
QUERY = "what happens to a job when its worker dies"

# Only a clone has them.
DEMO_PAGES = [page for page in (TOP / "docs", TOP / "README.md") if (TOP / "docs" / "getting-started.md").is_file()]
NO_DEMO = "this installed package has none"
# Settings that a command in another terminal needs to find this installation.
LOCATING = ("MILLRACE_DATA_DIR", "MILLRACE_HOST", "MILLRACE_PORT")

Print = Callable[..., None]


class _StopSignal(BaseException):
    """SIGINT or SIGTERM arrived."""


def run(*, demo: bool | None, for_s: float | None, as_json: bool) -> int:
    """Start the system, show the demo, run, stop. The exit code depends on the start, not on how it was stopped."""
    hide_memory()
    say = _print_nothing if as_json else output.err.print
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop_signal)
    demo = _has_demo(say) if demo is None else demo
    if demo and not DEMO_PAGES:
        raise CliExit(exit_codes.USAGE, f"--demo indexes the pages of a clone of Millrace, and {NO_DEMO}")
    here = _prepare(say)
    supervisor = Supervisor(here)
    if supervisor.is_running():
        raise CliExit(exit_codes.FAILED, f"Millrace already runs here, at {here.local_url}")
    _clear_the_way(here, supervisor, say)
    try:
        supervisor.start()
        _wait_until_ready(supervisor, here)
        workers = f"{here.worker_count} worker" + ("" if here.worker_count == 1 else "s")
        say(f"[green]ready[/]  api, {workers}, scheduler, relay  {here.local_url}")
        demo_result = _run_demo(say) if demo else None
        _print_summary(here, supervisor, demo_result, as_json)
        _run_until_stopped(supervisor, for_s)
    except _StopSignal:
        say("")
    finally:
        say("stopping; running jobs are finished or handed back")
        supervisor.stop()
    say("stopped")
    return exit_codes.OK


def _has_demo(say: Print) -> bool:
    """Return True if the pages of the demo are here: an installed package has none."""
    if not DEMO_PAGES:
        say(f"no demo: {NO_DEMO}")
    return bool(DEMO_PAGES)


def _print_nothing(*_: Any) -> None:
    """With --json only the result is printed."""


def _raise_stop_signal(_: int, __: FrameType | None) -> None:
    raise _StopSignal


def _prepare(say: Print) -> Settings:
    """Create data folder, secret and schema."""
    try:
        here = prepare(settings())
        here.check_secrets()
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message) from error
    except OSError as error:
        raise CliExit(exit_codes.USAGE, f"MILLRACE_DATA_DIR cannot be used: {error}") from error
    before, after = upgrade_schema()
    if before != after:
        say(f"[green]schema[/] {after}  in {output.plain(here.data_dir.resolve())}")
    return here


def _clear_the_way(here: Settings, supervisor: Supervisor, say: Print) -> None:
    """End the programs of a start that was killed. Raises CliExit if the api could not listen."""
    programs = sorted(set(leftovers.find(supervisor.socket).values()))
    if programs:
        say(f"ending {', '.join(programs)} of an earlier start, whose supervisord was killed")
        supervisor.end_leftovers()
    try:
        check_address(here.host, here.port)
    except ConfigError as error:
        raise CliExit(exit_codes.USAGE, error.message) from error


def _wait_until_ready(supervisor: Supervisor, here: Settings) -> None:
    """Wait until /readyz answers 200. Raises CliExit if a program cannot stay up."""
    deadline = time.monotonic() + MAX_START_S
    with http.client(READY_TIMEOUT_S, base_url=here.local_url) as client:
        answer = ""
        while time.monotonic() < deadline:
            fault = supervisor.fault()
            if fault:
                raise CliExit(exit_codes.FAILED, fault)
            try:
                response = client.get("/readyz")
                if response.is_success:
                    return
                answer = response.text
            except http.HTTPError as error:
                answer = str(error)
            time.sleep(READY_PAUSE_S)
    raise CliExit(exit_codes.FAILED, f"not ready after {MAX_START_S:g} s: {answer or 'no answer'}")


def _run_demo(say: Print) -> dict[str, Any]:
    """Index the project's own pages with progress bars, then run one search; return its results."""
    requests = [request for page in DEMO_PAGES for request in list_requests(str(page), ["millrace"])]
    began = time.monotonic()
    with ApiClient(profile=local()) as api:
        started = [StartedJob(name, send_request(api, body)) for name, body in requests]
        ended = wait_for_jobs(api, started, timeout_s=MAX_DEMO_S)
        failed = [job for job in ended if job["state"] != "succeeded"]
        if failed:
            reason = (failed[0].get("error") or {}).get("message") or failed[0]["state"]
            raise CliExit(exit_codes.FAILED, f"{len(failed)} of {len(ended)} pages could not be indexed: {reason}")
        say(f"[green]indexed[/] {len(ended)} pages of docs/ in {time.monotonic() - began:.1f} s")
        response: dict[str, Any] = api.post("/api/search", {"query": QUERY, "limit": 3})
    if not response["results"]:
        raise CliExit(exit_codes.FAILED, f"the pages were indexed, but a search for '{QUERY}' has no results")
    return {"pages": len(ended), "query": QUERY, "search": response}


def _print_summary(here: Settings, supervisor: Supervisor, demo: dict[str, Any] | None, as_json: bool) -> None:
    """Print the demo's results and the addresses of the system."""
    if as_json:
        programs = [program.name for program in supervisor.programs()]
        addresses = {"url": here.local_url, "dashboard": f"{here.local_url}/ui/", "docs": f"{here.local_url}/docs"}
        output.emit({**addresses, "programs": programs, "demo": demo})
        return
    if demo:
        output.out.print(f"\n[bold]millrace search[/] {output.plain(repr(demo['query']))}\n")
        print_results(demo["search"])
    folder = here.data_dir
    output.out.print(f"Dashboard  {here.local_url}/ui/      (sign in with the secret in {folder}/.env)")
    output.out.print(f"API        {here.local_url}/api      (Authorization: Bearer, the secret is in {folder}/.env)")
    output.out.print(f"API docs   {here.local_url}/docs")
    command = output.plain(command_line())
    output.out.print(f"Jobs       {here.local_url}/api/jobs  or  {command} jobs list")
    output.out.print(f'Search     {command} search "..."')
    output.out.print(f"Logs       {folder}/logs")
    output.out.print("Ctrl-C stops everything.")


def command_line() -> str:
    """Return the words that run `millrace` against this installation from the same folder in another terminal."""
    variables = [f"{name}={shlex.quote(os.environ[name])}" for name in LOCATING if os.environ.get(name)]
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        words = f"{sys.executable} -m app"
    elif shutil.which(program.name) == str(program.resolve()) or shutil.which(program.name) == str(program):
        words = program.name
    else:
        words = shlex.quote(sys.argv[0])
    return " ".join([*variables, words])


def _run_until_stopped(supervisor: Supervisor, for_s: float | None) -> None:
    """Wait for a signal or the end of the time. Raises CliExit if a program cannot stay up."""
    deadline = None if for_s is None else time.monotonic() + for_s
    while deadline is None or time.monotonic() < deadline:
        fault = supervisor.fault()
        if fault:
            raise CliExit(exit_codes.FAILED, fault)
        time.sleep(1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic())))
