"""Read the events of jobs (SSE). After a cut the stream continues behind the last event that was read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.cli import exit_codes
from app.cli.client.http import ApiClient
from app.cli.exit_codes import CliExit
from app.core import http

FINAL_STATES = {"succeeded", "failed", "cancelled"}
# An api that restarts answers again within seconds; after this time the server counts as unreachable.
MAX_OUTAGE_S = 30.0
MAX_SILENCE_S = 60.0
RECONNECT_PAUSE_S = 0.3
KEEP_ALIVE = "keep-alive"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a job. `kind` is progress, state or end; the first event is a snapshot."""

    id: str | None
    kind: str
    data: dict[str, Any]


def parse(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Yield the events of a text/event-stream.

    An event with an id and no data is a KEEP_ALIVE. Comments and other events without data are skipped.
    """
    kind, has_id = "message", False
    last_id: str | None = None
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(last_id, kind, json.loads("\n".join(data)))
            elif has_id:
                yield ServerEvent(last_id, KEEP_ALIVE, {})
            kind, data, has_id = "message", [], False
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            last_id, has_id = value, True
        elif name == "data":
            data.append(value)


def job_events(api: ApiClient, job_id: str, *, timeout_s: float | None = None) -> Iterator[ServerEvent]:
    """Yield the events of one job until it has ended. Raises CliExit(TIMEOUT) after timeout_s."""
    timeout = CliExit(exit_codes.TIMEOUT, f"job {job_id} goes on, but was not done in time")
    for event in _read_stream(api, f"/api/jobs/{job_id}/events", {}, timeout_s, timeout):
        yield event
        if event.kind == "end" or event.data.get("state") in FINAL_STATES:
            return


def all_events(api: ApiClient, filters: dict[str, str], *, timeout_s: float | None = None) -> Iterator[ServerEvent]:
    """Yield the events of all jobs that match, until timeout_s has passed."""
    timeout = CliExit(exit_codes.OK)
    try:
        yield from _read_stream(api, "/api/events", filters, timeout_s, timeout)
    except CliExit as error:
        if error is not timeout:
            raise


def _read_stream(
    api: ApiClient, path: str, filters: dict[str, str], timeout_s: float | None, timeout: CliExit
) -> Iterator[ServerEvent]:
    """Yield events over as many connections as necessary. Raises `timeout` after timeout_s."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    last_id: str | None = None
    broken_since: float | None = None
    while True:
        try:
            for event in _read_connection(api, path, filters, last_id, deadline):
                broken_since, last_id = None, event.id or last_id
                if event.kind != KEEP_ALIVE:
                    yield event
                _check_deadline(deadline, timeout)
        except http.HTTPError as error:
            _check_deadline(deadline, timeout)
            broken_since = broken_since or time.monotonic()
            if time.monotonic() - broken_since > MAX_OUTAGE_S:
                raise api.exit_for_unreachable(error) from error
        _check_deadline(deadline, timeout)
        time.sleep(RECONNECT_PAUSE_S)


def _read_connection(
    api: ApiClient, path: str, filters: dict[str, str], last_id: str | None, deadline: float | None
) -> Iterator[ServerEvent]:
    silence_s = MAX_SILENCE_S if deadline is None else max(0.1, min(MAX_SILENCE_S, deadline - time.monotonic()))
    headers = {"accept": "text/event-stream", **({"last-event-id": last_id} if last_id else {})}
    with api.client.stream("GET", path, params=filters, headers=headers, timeout=silence_s) as response:
        if not response.is_success:
            response.read()
            if response.status_code >= 500:
                response.raise_for_status()
            raise api.exit_for_refusal(response)
        if response.status_code == 204:  # every event up to the end has been read
            yield ServerEvent(last_id, "end", {})
        yield from parse(response.iter_lines())


def _check_deadline(deadline: float | None, timeout: CliExit) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise timeout
