"""`millrace up`: the whole system here, a first result within a minute, until Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from app.cli import exit_codes, output
from app.cli.client.http import Server
from app.cli.client.profiles import local, settings
from app.cli.commands import index, migrate, search
from app.cli.exit_codes import Quit
from app.cli.processes.local_install import TOP, Supervisor, is_free, prepare
from app.core import http
from app.core.errors import ConfigError
from app.core.settings import Settings

READY_WITHIN_S = 60.0
DEMO_WITHIN_S = 300.0
QUESTION = "what happens to a job when its worker dies"


class _Stop(BaseException):
    """Somebody asked us to end (SIGINT, SIGTERM)."""


def run(*, demo: bool, for_s: float | None, as_json: bool) -> int:
    """Start, show, stay, stop. The exit code says whether it worked, not how it was ended."""
    say = _silent if as_json else output.err.print
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop)
    here = _made_ready(say)
    supervisor = Supervisor(here)
    if supervisor.runs_already():
        raise Quit(exit_codes.FAILED, f"Millrace already runs here, at {here.api_url}")
    if not is_free(here.host, here.port):
        raise Quit(exit_codes.BAD_USE, f"port {here.port} is taken; choose another one with MILLRACE_PORT")
    try:
        supervisor.start()
        _wait_ready(supervisor, here)
        say(f"[green]ready[/]  api, {_count(here.worker_count, 'worker')}, scheduler, relay  {here.api_url}")
        shown = _demo(here, say) if demo else None
        _tell(here, supervisor, shown, as_json)
        _stay(supervisor, for_s)
    except _Stop:
        say("")
    finally:
        say("stopping; running jobs are finished or handed back")
        supervisor.stop()
    say("stopped")
    return exit_codes.OK


def _silent(*_: Any) -> None:
    """Says nothing: stdout and stderr are for programs."""


def _raise_stop(_: int, __: FrameType | None) -> None:
    raise _Stop


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _made_ready(say: Callable[..., None]) -> Settings:
    """Data folder, secret and schema."""
    try:
        here = prepare(settings())
        here.check_secrets()
    except ConfigError as error:
        raise Quit(exit_codes.BAD_USE, error.message) from error
    except OSError as error:
        raise Quit(exit_codes.BAD_USE, f"the data folder cannot be used: {error}") from error
    before, after = migrate.bring_up_to_date()
    if before != after:
        say(f"[green]schema[/] {after}  in {output.text(here.data_dir.resolve())}")
    return here


def _wait_ready(supervisor: Supervisor, here: Settings) -> None:
    """Until /readyz says yes. Raises Quit with the reason when a program gives up first."""
    deadline = time.monotonic() + READY_WITHIN_S
    with http.client(2.0, base_url=here.api_url) as client:
        answer = ""
        while time.monotonic() < deadline:
            fault = supervisor.fault()
            if fault:
                raise Quit(exit_codes.FAILED, fault)
            try:
                ready = client.get("/readyz")
                if ready.is_success:
                    return
                answer = ready.text
            except http.HTTPError as error:
                answer = str(error)
            time.sleep(0.1)
    raise Quit(exit_codes.FAILED, f"not ready after {READY_WITHIN_S:g} s: {answer or 'no answer'}")


def _demo(here: Settings, say: Callable[..., None]) -> dict[str, Any]:
    """Index the project's own pages with a live bar, ask one question of them; the answer."""
    bodies = [body for name in ("docs", "README.md") for body in index.requests(str(TOP / name), ["millrace"])]
    began = time.monotonic()
    with Server(there=local()) as server:
        sent = [index.Sent(name, server.post("/api/documents", body)) for name, body in bodies]
        ended = index.watch(server, sent, timeout_s=DEMO_WITHIN_S)
        bad = [job for job in ended if job["state"] != "succeeded"]
        if bad:
            reason = (bad[0].get("error") or {}).get("message") or bad[0]["state"]
            raise Quit(exit_codes.FAILED, f"{len(bad)} of {len(ended)} pages could not be indexed: {reason}")
        say(f"[green]indexed[/] {len(ended)} pages of docs/ in {time.monotonic() - began:.1f} s")
        answer: dict[str, Any] = server.post("/api/search", {"query": QUESTION, "limit": 3})
    if not answer["results"]:
        raise Quit(exit_codes.FAILED, f"the pages were indexed, but a search for '{QUESTION}' finds none")
    return {"pages": len(ended), "query": QUESTION, "search": answer}


def _tell(here: Settings, supervisor: Supervisor, shown: dict[str, Any] | None, as_json: bool) -> None:
    """What was found, and where to go on."""
    if as_json:
        programs = [program.name for program in supervisor.programs()]
        output.emit({"url": here.api_url, "docs": f"{here.api_url}/docs", "programs": programs, "demo": shown})
        return
    if shown:
        output.out.print(f"\n[bold]millrace search[/] {output.text(repr(shown['query']))}\n")
        search.show(shown["search"])
    folder = here.data_dir
    output.out.print(f"API        {here.api_url}/api      (Authorization: Bearer, the secret is in {folder}/.env)")
    output.out.print(f"API docs   {here.api_url}/docs")
    output.out.print(f"Jobs       {here.api_url}/api/jobs  or  .venv/bin/millrace jobs list")
    output.out.print('Search     .venv/bin/millrace search "..."')
    output.out.print(f"Logs       {folder}/logs")
    output.out.print("Ctrl-C stops everything.")


def _stay(supervisor: Supervisor, for_s: float | None) -> None:
    """Until asked to stop or the time is up. Raises Quit when a program gives up."""
    deadline = None if for_s is None else time.monotonic() + for_s
    while deadline is None or time.monotonic() < deadline:
        fault = supervisor.fault()
        if fault:
            raise Quit(exit_codes.FAILED, fault)
        left = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
        time.sleep(left)
