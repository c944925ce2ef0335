"""`millrace kinds` and `millrace jobs start`: which jobs may be started, and starting one."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.table import Table

from app.cli import exits, many, output
from app.cli.exits import Quit
from app.cli.follow import FINAL
from app.cli.server import Server

# The server waits so long for an end in one request.
ONE_WAIT_S = 30.0


def show_kinds(*, as_json: bool) -> int:
    """The kinds that may be started, with what their payload has."""
    with Server() as server:
        listed = server.get("/api/kinds")
    if as_json:
        output.emit(listed)
        return exits.OK
    table = Table("kind", "queue", "payload", "what it is", box=None, pad_edge=False)
    for kind in listed["data"]:
        first = (kind["description"] or "").partition("\n")[0]
        table.add_row(kind["kind"], kind["queue"], output.text(_fields(kind["schema"])), output.text(first))
    output.out.print(table)
    return exits.OK


def _fields(schema: dict[str, Any] | None) -> str:
    """`order_id: integer, note?: string`; what may be left out has a question mark."""
    known = schema or {}
    needed = set(known.get("required", []))
    return ", ".join(
        f"{name}{'' if name in needed else '?'}: {field.get('type', 'any')}"
        for name, field in known.get("properties", {}).items()
    )


def start(
    kind: str,
    payload: str,
    *,
    priority: int | None,
    due_at: str | None,
    unique_key: str | None,
    wait: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Start one job; with `wait`, FAILED unless it succeeded."""
    asked = {"kind": kind, "payload": _payload(payload)}
    given = {"priority": priority, "due_at": due_at, "unique_key": unique_key}
    with Server(timeout_s=ONE_WAIT_S + 30) as server:
        job = server.post("/api/jobs", asked | {name: value for name, value in given.items() if value is not None})
        if not wait:
            _say(job, as_json)
            return exits.OK
        if not as_json:
            many.follow([job["id"]], timeout_s=timeout_s, as_json=False)
        job = _ended(server, job["id"], timeout_s)
    if as_json:
        output.emit(job)
    elif job["result"] is not None:
        output.out.print(output.text(json.dumps(job["result"], ensure_ascii=False)))
    return exits.OK if job["state"] == "succeeded" else exits.FAILED


def _payload(text: str) -> Any:
    source = sys.stdin.read() if text == "-" else text
    try:
        return json.loads(source)
    except ValueError as error:
        raise Quit(exits.BAD_USE, f"the payload is not JSON: {error}") from error


def _ended(server: Server, job_id: str, timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        job: dict[str, Any] = server.get(f"/api/jobs/{job_id}", wait=min(ONE_WAIT_S, left_s))
        if job["state"] in FINAL:
            return job
        if left_s == 0.0:
            raise Quit(exits.TIMEOUT, f"job {job_id} is {job['state']} after {timeout_s:g} s")


def _say(job: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit(job)
    else:
        output.out.print(f"{output.state(job['state'])}  {job['id']}")
