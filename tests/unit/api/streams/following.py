"""A browser's side of an event stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx


class Received(NamedTuple):
    id: int
    name: str
    data: dict[str, Any]


def parse(lines: Iterator[str]) -> Iterator[Received]:
    """The events of a stream until it closes."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield Received(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}


@contextmanager
def follow(client: httpx.Client, job_id: str, **headers: str) -> Iterator[Iterator[Received]]:
    with client.stream("GET", f"/api/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield parse(response.iter_lines())
