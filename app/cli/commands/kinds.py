"""`millrace kinds`: what can be started; `millrace jobs start`: starting it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client import follow_jobs
from app.cli.client.http import Server
from app.cli.exit_codes import Quit


def show(name: str | None, *, as_json: bool) -> int:
    """A line for each kind, or one kind with the fields of its payload."""
    with Server() as server:
        page = server.get("/api/kinds")
    if name is not None:
        found = [kind for kind in page["data"] if kind["kind"] == name]
        if not found:
            raise Quit(exit_codes.NOT_FOUND, f"there is no kind '{name}' that this key may start")
        return _one(found[0], as_json)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("kind", "queue", "payload", "", box=None, pad_edge=False)
    for kind in page["data"]:
        about = (kind["description"] or "").split("\n")[0]
        table.add_row(kind["kind"], kind["queue"], ", ".join(_fields(kind)), output.text(about))
    output.out.print(table)
    return exit_codes.OK


def _one(kind: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.emit(kind)
        return exit_codes.OK
    output.out.print(f"[bold]{output.text(kind['kind'])}[/]  {output.text(kind['description'])}")
    for name in ("queue", "priority", "max_attempts", "time_limit_s", "payload_version", "unique"):
        if kind.get(name) is not None:
            output.out.print(f"  {name:<15} {output.text(kind[name])}")
    output.out.print(output.text(json.dumps(kind["schema"], indent=2, ensure_ascii=False)))
    return exit_codes.OK


def _fields(kind: dict[str, Any]) -> list[str]:
    """The payload's fields, those that may be left out with a question mark."""
    schema = kind["schema"] or {}
    needed = schema.get("required", [])
    fields = schema.get("properties", {}).items()
    return [f"{name}{'' if name in needed else '?'}: {about.get('type', 'any')}" for name, about in fields]


def start(
    kind: str, payload: str, options: Mapping[str, Any], *, wait: bool, timeout_s: float | None, as_json: bool
) -> int:
    """The started jobs, one a line; with `wait`, how they ended."""
    given = _parsed(payload)
    chosen = {name: value for name, value in options.items() if value is not None}
    if isinstance(given, list):
        body: Any = [{"kind": kind, "payload": one, **chosen} for one in given]
    else:
        body = {"kind": kind, "payload": given, **chosen}
    with Server() as server:
        answer = server.post("/api/jobs", body)
    jobs = answer["data"] if isinstance(given, list) else [answer]
    if wait:
        return _watch([job["id"] for job in jobs], timeout_s=timeout_s, as_json=as_json)
    for job in jobs:
        if as_json:
            output.emit(job)
        else:
            output.out.print(f"{output.state(job['state'])}  {job['id']}")
    return exit_codes.OK


def _watch(ids: list[str], *, timeout_s: float | None, as_json: bool) -> int:
    code = follow_jobs.follow(ids, timeout_s=timeout_s, as_json=as_json)
    if not as_json:
        with Server() as server:
            for result in [server.get(f"/api/jobs/{job_id}").get("result") for job_id in ids]:
                if result is not None:
                    output.out.print(output.text(json.dumps(result, ensure_ascii=False)))
    return code


def _parsed(payload: str) -> Any:
    """The JSON itself, from stdin (-) or from a file (@name)."""
    try:
        if payload == "-":
            payload = sys.stdin.read()
        elif payload.startswith("@"):
            payload = Path(payload[1:]).read_text(encoding="utf-8")
        return json.loads(payload)
    except (OSError, UnicodeDecodeError) as error:
        raise Quit(exit_codes.BAD_USE, f"the payload cannot be read: {error}") from error
    except ValueError as error:
        raise Quit(exit_codes.BAD_USE, f"the payload is not JSON: {error}") from error
