"""Wait for jobs that this command has started, with a progress bar for each running job and one for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from rich.progress import Progress

from app.cli import exit_codes, output
from app.cli.client.event_stream import FINAL_STATES, job_events
from app.cli.client.http import ApiClient
from app.cli.exit_codes import CliExit

MAX_STREAMS = 8


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A job and the name under which the user asked for it."""

    name: str
    job: dict[str, Any]


def wait_for_jobs(api: ApiClient, started: Sequence[StartedJob], *, timeout_s: float) -> list[dict[str, Any]]:
    """Return every job as it ended, in the same order. Raises CliExit(TIMEOUT) after timeout_s."""
    deadline = time.monotonic() + timeout_s
    todo: SimpleQueue[tuple[StartedJob, Future[dict[str, Any]]]] = SimpleQueue()
    futures = []
    for job in started:
        futures.append(Future[dict[str, Any]]())
        todo.put((job, futures[-1]))
    with output.new_progress() as bars:
        overall = bars.add_task(f"[bold]{len(started)} documents[/]", total=len(started), stage="")

        def wait_for_rest() -> None:
            while not todo.empty():
                with suppress(Empty):
                    job, future = todo.get_nowait()
                    _settle(future, api, job, bars, deadline)
                    bars.advance(overall)

        # Daemon threads, not an executor: an executor's threads delay a Ctrl-C until the last stream has an event.
        for _ in range(min(MAX_STREAMS, len(started))):
            threading.Thread(target=wait_for_rest, daemon=True).start()
        return [future.result() for future in futures]


def _settle(
    future: Future[dict[str, Any]], api: ApiClient, started: StartedJob, bars: Progress, deadline: float
) -> None:
    try:
        future.set_result(_wait_for_job(api, started, bars, deadline))
    except CliExit as error:
        future.set_exception(error)
    finally:
        if not future.done():  # a bug: its traceback is on stderr, and the main thread must not wait for ever
            future.set_exception(CliExit(exit_codes.FAILED, f"{started.name} could not be watched"))


def _wait_for_job(api: ApiClient, started: StartedJob, bars: Progress, deadline: float) -> dict[str, Any]:
    job_id = str(started.job["id"])
    if started.job["state"] not in FINAL_STATES:
        name = output.plain(Path(started.name).name or started.name)
        bar = bars.add_task(name, total=100, stage=started.job["state"])
        for event in job_events(api, job_id, timeout_s=max(0.1, deadline - time.monotonic())):
            percent = event.data.get("percent")
            bars.update(bar, completed=percent or 0, stage=event.data.get("stage") or event.data.get("state") or "")
        bars.remove_task(bar)
    job: dict[str, Any] = api.get(f"/api/jobs/{job_id}")
    return job
