"""A job's events as they come: SSE, taken up again from the last one seen whenever the connection breaks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.cli import exit_codes
from app.cli.client.http import Server, refusal, unreachable
from app.cli.exit_codes import Quit
from app.core import http

FINAL = {"succeeded", "failed", "cancelled"}
# An api that restarts is back within seconds; one that is silent for this long is gone.
PATIENCE_S = 30.0
SILENCE_S = 60.0
SIGN_OF_LIFE = "sign of life"


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is progress, state or end; `data` is DESIGN's event, the first one a snapshot."""

    id: str | None
    kind: str
    data: dict[str, Any]


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Events of a text/event-stream. Comments are skipped; an id alone is a SIGN_OF_LIFE, anything else without data
    is nothing."""
    kind, told = "message", False
    last_id: str | None = None
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield Event(last_id, kind, json.loads("\n".join(data)))
            elif told:
                yield Event(last_id, SIGN_OF_LIFE, {})
            kind, data, told = "message", [], False
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            last_id, told = value, True
        elif name == "data":
            data.append(value)


def events(server: Server, job_id: str, *, timeout_s: float | None = None) -> Iterator[Event]:
    """Until the job has ended. Raises Quit(TIMEOUT) when it has not within timeout_s."""
    late = Quit(exit_codes.TIMEOUT, f"job {job_id} goes on, but was not done in time")
    for event in _stream(server, f"/api/jobs/{job_id}/events", {}, timeout_s, late):
        yield event
        if event.kind == "end" or event.data.get("state") in FINAL:
            return


def all_events(server: Server, wanted: dict[str, str], *, timeout_s: float | None = None) -> Iterator[Event]:
    """Those of all jobs, until timeout_s has passed."""
    late = Quit(exit_codes.OK)
    try:
        yield from _stream(server, "/api/events", wanted, timeout_s, late)
    except Quit as end:
        if end is not late:
            raise


def _stream(server: Server, path: str, wanted: dict[str, str], timeout_s: float | None, late: Quit) -> Iterator[Event]:
    """A stream without an end of its own, over as many connections as it takes. Raises `late` after timeout_s."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    seen: str | None = None
    broken_since: float | None = None
    while True:
        try:
            for event in _connection(server, path, wanted, seen, deadline):
                broken_since, seen = None, event.id or seen
                if event.kind != SIGN_OF_LIFE:
                    yield event
                _check(deadline, late)
        except http.HTTPError as error:
            _check(deadline, late)
            broken_since = broken_since or time.monotonic()
            if time.monotonic() - broken_since > PATIENCE_S:
                raise unreachable(server.url, error) from error
        _check(deadline, late)
        time.sleep(0.3)


def _connection(
    server: Server, path: str, wanted: dict[str, str], seen: str | None, deadline: float | None
) -> Iterator[Event]:
    silence_s = SILENCE_S if deadline is None else max(0.1, min(SILENCE_S, deadline - time.monotonic()))
    headers = {"accept": "text/event-stream", **({"last-event-id": seen} if seen else {})}
    with server.client.stream("GET", path, params=wanted, headers=headers, timeout=silence_s) as answer:
        if not answer.is_success:
            answer.read()
            if answer.status_code >= 500:
                answer.raise_for_status()
            raise refusal(answer)
        if answer.status_code == 204:  # we have heard everything up to the end
            yield Event(seen, "end", {})
        yield from parse(answer.iter_lines())


def _check(deadline: float | None, late: Quit) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise late
