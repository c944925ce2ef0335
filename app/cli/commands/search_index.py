"""What `millrace index` says of the index itself: how it is, whether it is whole, building it anew, its generations."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from app.cli import exit_codes, output
from app.cli.client import follow_jobs
from app.cli.client.http import Server
from app.cli.commands.index import Sent, watch
from app.cli.exit_codes import Quit

PATH = "/api/index"
LONGEST_WAIT_S = 6 * 3600.0


def state(*, as_json: bool) -> int:
    with Server() as server:
        found = server.get(f"{PATH}/state")
    if as_json:
        output.emit(found)
        return exit_codes.OK
    behind = found["behind"]
    where = f"{behind['changes']} changes behind, {behind['seconds']:g} s" if behind["changes"] else "up to date"
    output.out.print(f"{output.text(found['engine'])}  {output.text(found['model'])}  {where}")
    return exit_codes.OK


def verify(*, repair: bool, as_json: bool) -> int:
    """Waits for the answer; the exit code is that of a failure where something is not the same."""
    said = _result("verify", {"repair": repair})
    if as_json:
        output.emit(said)
    else:
        _show(said)
    return exit_codes.OK if said["ok"] else exit_codes.FAILED


def generations(*, as_json: bool) -> int:
    with Server() as server:
        page = server.get(f"{PATH}/generations")
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = Table("generation", "numbers", "state", "since", box=None, pad_edge=False)
    for one in page["data"]:
        table.add_row(output.text(one["name"]), str(one["dimension"]), one["state"], one["changed_at"] or "")
    output.out.print(table)
    return exit_codes.OK


def compare(first: str, second: str, *, queries: list[str], as_json: bool) -> int:
    said = _result("generations/compare", {"first": first, "second": second, "queries": queries})
    if as_json:
        output.emit(said)
        return exit_codes.OK
    output.out.print(
        f"{said['queries']} questions: {said['overlap']:.0%} of the documents shown are the same, "
        f"{said['same_first']:.0%} of the first ones"
    )
    return exit_codes.OK


def start(path: str, body: dict[str, Any], *, wait: bool, as_json: bool) -> int:
    """Start a job about the index."""
    with Server() as server:
        job = server.post(f"{PATH}/{path}", body)
    if wait:
        return follow_jobs.follow([job["id"]], timeout_s=None, as_json=as_json)
    if as_json:
        output.emit(job)
    else:
        output.out.print(f"{output.state(job['state'])}  {job['id']}")
    return exit_codes.OK


def _result(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the job says in the end. Raises Quit where it does not succeed."""
    with Server() as server:
        job = server.post(f"{PATH}/{path}", body)
        ended = watch(server, [Sent(path, job)], timeout_s=LONGEST_WAIT_S)[0]
        said: dict[str, Any] | None = server.get(f"/api/jobs/{job['id']}").get("result")
    if said is None:
        raise Quit(exit_codes.FAILED, f"job {job['id']} {ended['state']}: {(ended.get('error') or {}).get('message')}")
    return said


def _show(said: dict[str, Any]) -> None:
    counts = ", ".join(f"{said[name]} {name}" for name in ("documents", "chunks", "vectors", "postings"))
    output.out.print(f"{said['engine']}: {counts}")
    for name in ("missing", "extra", "different"):
        ids = said[name]
        if ids:
            output.out.print(f"  {name}: {', '.join(map(str, ids))}")
    output.out.print("  all the same" if said["ok"] else f"  {said['repaired']} are written again")
