"""`millrace index state|verify|rebuild`: how the index is, whether it is whole, and building it anew."""

from __future__ import annotations

from typing import Any

from app.cli import exits, many, output
from app.cli.exits import Quit
from app.cli.index import Sent, watch
from app.cli.server import Server

PATH = "/api/index"
LONGEST_WAIT_S = 6 * 3600.0


def state(*, as_json: bool) -> int:
    with Server() as server:
        found = server.get(f"{PATH}/state")
    if as_json:
        output.emit(found)
        return exits.OK
    behind = found["behind"]
    where = f"{behind['changes']} changes behind, {behind['seconds']:g} s" if behind["changes"] else "up to date"
    output.out.print(f"{output.text(found['engine'])}  {output.text(found['model'])}  {where}")
    return exits.OK


def verify(*, repair: bool, as_json: bool) -> int:
    """Waits for the answer; the exit code is that of a failure where something is not the same."""
    with Server() as server:
        job = server.post(f"{PATH}/verify", {"repair": repair})
        ended = watch(server, [Sent("verify", job)], timeout_s=LONGEST_WAIT_S)[0]
        said = server.get(f"/api/jobs/{job['id']}").get("result")
    if said is None:
        raise Quit(exits.FAILED, f"job {job['id']} {ended['state']}: {(ended.get('error') or {}).get('message')}")
    if as_json:
        output.emit(said)
    else:
        _show(said)
    return exits.OK if said["ok"] else exits.FAILED


def rebuild(*, wait: bool, as_json: bool) -> int:
    with Server() as server:
        job = server.post(f"{PATH}/rebuild", {})
    if wait:
        return many.follow([job["id"]], timeout_s=None, as_json=as_json)
    if as_json:
        output.emit(job)
    else:
        output.out.print(f"{output.state(job['state'])}  {job['id']}")
    return exits.OK


def _show(said: dict[str, Any]) -> None:
    counts = ", ".join(f"{said[name]} {name}" for name in ("documents", "chunks", "vectors", "postings"))
    output.out.print(f"{said['engine']}: {counts}")
    for name in ("missing", "extra", "different"):
        ids = said[name]
        if ids:
            output.out.print(f"  {name}: {', '.join(map(str, ids))}")
    output.out.print("  all the same" if said["ok"] else f"  {said['repaired']} are written again")
