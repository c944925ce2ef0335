"""A job's events as they come: SSE, taken up again from the last one seen whenever the connection breaks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.cli import exits
from app.cli.exits import Quit
from app.cli.server import Server, refusal, unreachable
from app.core import http

FINAL = {"succeeded", "failed", "cancelled"}
# An api that restarts is back within seconds; one that is silent for this long is gone.
PATIENCE_S = 30.0
SILENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is progress, state or end; `data` is DESIGN's event, the first one a snapshot."""

    id: str | None
    kind: str
    data: dict[str, Any]


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Events of a text/event-stream; comments are skipped, an event without data is none."""
    kind = "message"
    last_id: str | None = None
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield Event(last_id, kind, json.loads("\n".join(data)))
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            last_id = value
        elif name == "data":
            data.append(value)


def events(server: Server, job_id: str, *, timeout_s: float | None = None) -> Iterator[Event]:
    """Until the job has ended. Raises Quit(TIMEOUT) when it has not within timeout_s."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    seen: str | None = None
    broken_since: float | None = None
    while True:
        try:
            for event in _connection(server, job_id, seen, deadline):
                broken_since, seen = None, event.id or seen
                yield event
                if event.kind == "end" or event.data.get("state") in FINAL:
                    return
                _check(deadline, job_id)
        except http.HTTPError as error:
            _check(deadline, job_id)
            broken_since = broken_since or time.monotonic()
            if time.monotonic() - broken_since > PATIENCE_S:
                raise unreachable(server.url, error) from error
        _check(deadline, job_id)
        time.sleep(0.3)


def _connection(server: Server, job_id: str, seen: str | None, deadline: float | None) -> Iterator[Event]:
    silence_s = SILENCE_S if deadline is None else max(0.1, min(SILENCE_S, deadline - time.monotonic()))
    headers = {"accept": "text/event-stream", **({"last-event-id": seen} if seen else {})}
    with server.client.stream("GET", f"/api/jobs/{job_id}/events", headers=headers, timeout=silence_s) as answer:
        if not answer.is_success:
            answer.read()
            if answer.status_code >= 500:
                answer.raise_for_status()
            raise refusal(answer)
        if answer.status_code == 204:  # we have heard everything up to the end
            yield Event(seen, "end", {})
        yield from parse(answer.iter_lines())


def _check(deadline: float | None, job_id: str) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise Quit(exits.TIMEOUT, f"job {job_id} goes on, but was not done in time")
