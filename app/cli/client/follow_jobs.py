"""Follow one job, several or all: a progress bar each, until the last has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from rich.progress import Progress, TaskID

from app.cli import exit_codes, output
from app.cli.client.event_stream import FINAL_STATES, ServerEvent, all_events, job_events
from app.cli.client.http import ApiClient
from app.cli.exit_codes import CliExit

MAX_STREAMS = 32
MAX_BARS = 30
TIMEOUT_S = 60.0


class Update(NamedTuple):
    """News of a job from a listening thread: an event, the ended job, or the error that hides its end."""

    job_id: str
    news: ServerEvent | dict[str, Any] | CliExit


class JobBars:
    """A progress bar for each job with an event, on a terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._of: dict[str, TaskID] = {}

    def show(self, job_id: str, data: dict[str, Any], name: str | None = None) -> None:
        bar = self._of.get(job_id)
        if bar is None:
            if len(self._of) >= MAX_BARS:
                return
            bar = self._of[job_id] = self._bars.add_task(output.plain(name or job_id), total=100, stage="")
        if data.get("state") is not None:
            self._bars.update(bar, completed=data.get("percent") or 0, stage=output.plain(_format_stage(data)))

    def remove(self, job_id: str) -> None:
        bar = self._of.pop(job_id, None)
        if bar is not None:
            self._bars.remove_task(bar)


def follow(job_ids: Sequence[str], *, timeout_s: float | None, as_json: bool) -> int:
    """Show every job's events until its end. Return OK only if all succeeded, else the highest code."""
    ids = list(dict.fromkeys(job_ids))
    open_ids, code = set(ids), exit_codes.OK
    with ApiClient(TIMEOUT_S) as api, output.new_progress() as progress:
        bars = JobBars(progress)
        for job_id, news in _listen(_job_sources(api, ids), timeout_s):
            if isinstance(news, ServerEvent):
                _show_event(bars, job_id, news, as_json)
                continue
            open_ids.discard(job_id)
            bars.remove(job_id)
            code = max(code, _show_end(job_id, news, len(ids) == 1, as_json))
            if not open_ids:
                return code
    if len(ids) == 1:
        raise CliExit(exit_codes.TIMEOUT, f"job {ids[0]} goes on, but was not done in time")
    raise CliExit(exit_codes.TIMEOUT, f"{len(open_ids)} of {len(ids)} jobs go on, but were not done in time")


def follow_started(job: dict[str, Any], *, wait: bool, as_json: bool) -> int:
    """Print a job that was just started; with `wait` follow it to its end."""
    if wait:
        return follow([job["id"]], timeout_s=None, as_json=as_json)
    output.print_job(job, as_json)
    return exit_codes.OK


def follow_all(*, kinds: str | None, states: Sequence[str], timeout_s: float | None, as_json: bool) -> int:
    """Show the events of all jobs until timeout_s has passed or the user presses Ctrl-C."""
    filters = {name: value for name, value in (("kind", kinds), ("state", ",".join(states))) if value}
    with ApiClient(TIMEOUT_S) as api, output.new_progress() as progress:
        bars = JobBars(progress)

        def read_all() -> Iterator[Update]:
            try:
                for event in all_events(api, filters):
                    yield Update(str(event.data.get("job_id") or ""), event)
            except CliExit as error:
                yield Update("", error)

        for job_id, news in _listen([read_all], timeout_s):
            if isinstance(news, CliExit):
                raise news
            if isinstance(news, ServerEvent):
                _show_event_of_all(bars, job_id, news, as_json)
    return exit_codes.OK


def _show_event(bars: JobBars, job_id: str, event: ServerEvent, as_json: bool) -> None:
    if as_json:
        output.emit({"event": event.kind, "job_id": job_id, **event.data})
    else:
        bars.show(job_id, event.data)


def _show_event_of_all(bars: JobBars, job_id: str, event: ServerEvent, as_json: bool) -> None:
    data = event.data
    if as_json:
        output.emit({"event": event.kind, **data})
    elif event.kind == "reset":
        output.err.print("[yellow]some events were lost[/]")
    elif job_id:
        if data.get("state") in FINAL_STATES:
            bars.remove(job_id)
        else:
            bars.show(job_id, data, f"{data.get('kind') or '?'} {job_id[-8:]}")
        if event.kind != "progress":
            message = f"  {output.plain(data['message'])}" if data.get("message") else ""
            output.out.print(
                f"{output.style_state(data['state'])}  {output.plain(data.get('kind'))}  {job_id}{message}"
            )


def _show_end(job_id: str, end: dict[str, Any] | CliExit, is_only_job: bool, as_json: bool) -> int:
    if isinstance(end, CliExit):
        if is_only_job:
            raise end
        output.err.print(f"{output.plain(job_id)}: {output.plain(end.message)}")
        return end.code
    if not as_json:
        output.print_job(end, as_json=False)
        output.print_error(end)
    return exit_codes.OK if end["state"] == "succeeded" else exit_codes.FAILED


def _job_sources(api: ApiClient, job_ids: list[str]) -> list[Callable[[], Iterator[Update]]]:
    """Return a few sources that share the jobs: each takes the next job when one has ended."""
    todo: SimpleQueue[str] = SimpleQueue()
    for job_id in job_ids:
        todo.put(job_id)

    def read_jobs() -> Iterator[Update]:
        while True:
            try:
                job_id = todo.get_nowait()
            except Empty:
                return
            try:
                for event in job_events(api, job_id):
                    yield Update(job_id, event)
                yield Update(job_id, api.get(f"/api/jobs/{job_id}"))
            except CliExit as error:
                yield Update(job_id, error)

    return [read_jobs] * min(MAX_STREAMS, len(job_ids))


def _listen(sources: Sequence[Callable[[], Iterator[Update]]], timeout_s: float | None) -> Iterator[Update]:
    """Yield the updates of all sources as they arrive, until timeout_s has passed.

    Each source blocks on its connection in a daemon thread, which is never joined: Ctrl-C or the timeout ends the
    program at once.
    """
    updates: SimpleQueue[Update] = SimpleQueue()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def read(source: Callable[[], Iterator[Update]]) -> None:
        for update in source():
            updates.put(update)

    for source in sources:
        threading.Thread(target=read, args=(source,), daemon=True).start()
    while True:
        try:
            # Short waits: on some systems Python handles a Ctrl-C only between two waits.
            wait_s = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if wait_s <= 0:
                return
            yield updates.get(timeout=wait_s)
        except Empty:
            continue


def _format_stage(data: dict[str, Any]) -> str:
    done, total, unit = data.get("done"), data.get("total"), data.get("unit") or ""
    count = f" {done}/{total} {unit}" if done is not None and total else ""
    return f"{data.get('stage') or data.get('state') or ''}{count}"
