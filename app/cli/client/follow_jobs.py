"""`millrace jobs follow`: one job, several, or all, each with a bar of its own, until the last has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from rich.progress import Progress, TaskID

from app.cli import exit_codes, output
from app.cli.client.event_stream import FINAL, Event, all_events, events
from app.cli.client.http import Server
from app.cli.exit_codes import Quit

AT_ONCE = 32
MOST_BARS = 30


class Heard(NamedTuple):
    """What one of the listening threads has to say about a job: an event, how it ended, or why it cannot be known."""

    job_id: str
    said: Event | dict[str, Any] | Quit


class Bars:
    """A bar for each job that is heard of, on a terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._of: dict[str, TaskID] = {}

    def show(self, job_id: str, data: dict[str, Any], name: str | None = None) -> None:
        bar = self._of.get(job_id)
        if bar is None:
            if len(self._of) >= MOST_BARS:
                return
            bar = self._of[job_id] = self._bars.add_task(output.text(name or job_id), total=100, stage="")
        if data.get("state") is not None:
            self._bars.update(bar, completed=data.get("percent") or 0, stage=output.text(_where(data)))

    def drop(self, job_id: str) -> None:
        bar = self._of.pop(job_id, None)
        if bar is not None:
            self._bars.remove_task(bar)


def follow(job_ids: Sequence[str], *, timeout_s: float | None, as_json: bool) -> int:
    """Every job's events until its end; OK only if all succeeded, else FAILED, or what kept us from knowing."""
    waiting = list(dict.fromkeys(job_ids))
    left, code = set(waiting), exit_codes.OK
    with Server(timeout_s=60) as server, output.progress() as drawn:
        bars = Bars(drawn)
        for job_id, said in _listen(_followers(server, waiting), timeout_s):
            if isinstance(said, Event):
                _event(bars, job_id, said, as_json)
                continue
            left.discard(job_id)
            bars.drop(job_id)
            code = max(code, _ended(job_id, said, len(waiting) == 1, as_json))
            if not left:
                return code
    number = (
        f"{len(left)} of {len(waiting)} jobs go on, but were"
        if len(waiting) > 1
        else f"job {waiting[0]} goes on, but was"
    )
    raise Quit(exit_codes.TIMEOUT, f"{number} not done in time")


def _event(bars: Bars, job_id: str, event: Event, as_json: bool) -> None:
    if as_json:
        output.emit({"event": event.kind, "job_id": job_id, **event.data})
    else:
        bars.show(job_id, event.data)


def _ended(job_id: str, said: dict[str, Any] | Quit, alone: bool, as_json: bool) -> int:
    if isinstance(said, Quit):
        if alone:
            raise said
        output.err.print(f"{output.text(job_id)}: {output.text(said.message)}")
        return said.code
    if not as_json:
        output.out.print(f"{output.state(said['state'])}  {said['id']}")
        if said.get("error"):
            output.out.print(f"  [red]{output.text(said['error']['type'])}[/] {output.text(said['error']['message'])}")
    return exit_codes.OK if said["state"] == "succeeded" else exit_codes.FAILED


def _followers(server: Server, job_ids: list[str]) -> list[Callable[[], Iterator[Heard]]]:
    """A few listeners that share the jobs: one more begins as soon as one has ended."""
    todo: SimpleQueue[str] = SimpleQueue()
    for job_id in job_ids:
        todo.put(job_id)

    def one_by_one() -> Iterator[Heard]:
        while True:
            try:
                job_id = todo.get_nowait()
            except Empty:
                return
            try:
                for event in events(server, job_id):
                    yield Heard(job_id, event)
                yield Heard(job_id, server.get(f"/api/jobs/{job_id}"))
            except Quit as fault:
                yield Heard(job_id, fault)

    return [one_by_one] * min(AT_ONCE, len(job_ids))


def follow_all(*, kinds: str | None, states: Sequence[str], timeout_s: float | None, as_json: bool) -> int:
    """The events of all jobs until timeout_s has passed or somebody has seen enough."""
    wanted = {name: value for name, value in (("kind", kinds), ("state", ",".join(states))) if value}
    with Server(timeout_s=60) as server, output.progress() as drawn:
        bars = Bars(drawn)

        def everything() -> Iterator[Heard]:
            try:
                for event in all_events(server, wanted):
                    yield Heard(str(event.data.get("job_id") or ""), event)
            except Quit as fault:
                yield Heard("", fault)

        for job_id, said in _listen([everything], timeout_s):
            if isinstance(said, Quit):
                raise said
            if isinstance(said, Event):
                _one_of_all(bars, job_id, said, as_json)
    return exit_codes.OK


def _one_of_all(bars: Bars, job_id: str, event: Event, as_json: bool) -> None:
    data = event.data
    if as_json:
        output.emit({"event": event.kind, **data})
    elif event.kind == "reset":
        output.err.print("[yellow]some events were lost[/]")
    elif job_id:
        name = f"{data.get('kind') or '?'} {job_id[-8:]}"
        if data.get("state") in FINAL:
            bars.drop(job_id)
        else:
            bars.show(job_id, data, name)
        if event.kind != "progress":
            said = f"  {output.text(data['message'])}" if data.get("message") else ""
            output.out.print(f"{output.state(data['state'])}  {output.text(data.get('kind'))}  {job_id}{said}")


def _listen(sources: Sequence[Callable[[], Iterator[Heard]]], timeout_s: float | None) -> Iterator[Heard]:
    """What all of them say, as it comes, until timeout_s has passed.

    Each blocks on its connection in a thread of its own, which nobody waits for: a Ctrl-C or the time being up ends the
    program at once.
    """
    said: SimpleQueue[Heard] = SimpleQueue()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def hear(source: Callable[[], Iterator[Heard]]) -> None:
        for heard in source():
            said.put(heard)

    for source in sources:
        threading.Thread(target=hear, args=(source,), daemon=True).start()
    while True:
        try:
            # Not for ever at once: only between two waits does Python look for a Ctrl-C on every system.
            rest_s = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if rest_s <= 0:
                return
            yield said.get(timeout=rest_s)
        except Empty:
            continue


def _where(data: dict[str, Any]) -> str:
    done, total, unit = data.get("done"), data.get("total"), data.get("unit") or ""
    count = f" {done}/{total} {unit}" if done is not None and total else ""
    return f"{data.get('stage') or data.get('state') or ''}{count}"
