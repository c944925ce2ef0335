"""Give it a page, watch the progress, find it by search seconds later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import REPOSITORY, Stack
from tests.support.waiting import wait_until
from tests.unit.api.streams.following import follow

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

PAGE = """# Keeping a mill pond

The sluice is opened at dawn, before the carp begin to feed.

## Winter

Ice on the race is broken with a maul, never with an axe.
"""
STAGES = ["extract", "chunk", "embed", "index"]


def test_a_page_goes_in_and_a_search_finds_it(stack: Stack) -> None:
    """POST /api/documents answers 202, its events tell every stage, and when the job has ended it is found."""
    stack.start()
    page = {"url": "https://mills.example/pond", "markdown": PAGE, "tags": ["pond"], "metadata": {"by": "miller"}}
    answer = stack.post("/api/documents", page)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/jobs/{job['id']}"

    with follow(stack.client, job["id"]) as events:
        received = list(events)
    assert (received[-1].name, received[-1].data["state"], received[-1].data["percent"]) == ("end", "succeeded", 100)
    percents = [event.data["percent"] for event in received if event.data["percent"] is not None]
    assert percents == sorted(percents)
    stages = list(dict.fromkeys(event.data["stage"] for event in received if event.data["stage"]))
    assert stages == [stage for stage in STAGES if stage in stages]
    assert stages[-1] == "index"

    for mode in ("hybrid", "semantic", "keyword"):
        response = stack.post("/api/search", {"query": "breaking ice on the mill race", "mode": mode}).json()
        assert response["results"][0]["title"] == "Keeping a mill pond", mode
        assert "maul" in response["results"][0]["text"], mode

    shown = stack.client.get(f"/api/documents/{job['document_id']}").json()
    assert shown["metadata"]["by"] == "miller"
    assert stack.client.delete(f"/api/documents/{job['document_id']}").status_code == 204
    assert stack.post("/api/search", {"query": "maul", "mode": "keyword"}).json()["total"] == 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # its lines are written as single documents are
def test_a_file_of_lines_is_indexed_as_one_job(stack: Stack, tmp_path: Path) -> None:
    """`millrace index dump.ndjson`: a worker is killed on the way, each line is there once, a bad one is told."""
    lines = [json.dumps({"external_id": str(n), "text": f"The mill number{n}."}) for n in range(400)]
    path = tmp_path / "dump.ndjson"
    path.write_text("\n".join([*lines[:200], "{broken", *lines[200:]]))
    stack.start(workers=1)
    job = stack.client.post(
        "/api/documents:batch", content=path.read_bytes(), headers={"content-type": "application/x-ndjson"}
    ).json()
    wait_until(lambda: (stack.job(job["id"])["progress"] or {}).get("done"), what="some lines to be done")
    stack.workers[0].kill()
    stack.workers[0].start()
    ended = stack.wait_for_job(job["id"], timeout_s=60)
    assert ended["state"] == "succeeded" and ended["result"] == {
        "lines": 401, "indexed": 400, "unchanged": 0, "failed": 1
    }  # fmt: skip
    ends = stack.client.get(f"/api/documents:batch/{job['id']}").text.splitlines()
    assert [json.loads(end)["line"] for end in ends] == list(range(1, 402))
    assert json.loads(ends[200])["error"]["code"] == "line_no_json"
    response = stack.post("/api/search", {"query": "number7", "mode": "keyword"}).json()
    assert response["total"] == 1
    assert stack.client.get("/api/stats").json()["total_documents"] == 400
    command = [sys.executable, "-m", "app", "index", str(path), "--wait"]
    env = {**stack.env, "MILLRACE_API_SECRET": stack.secret}
    ran = subprocess.run(command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and "400 unchanged, 1 failed" in ran.stdout, ran.stdout + ran.stderr
