"""Give it a page, watch the progress, find it by search seconds later."""

from __future__ import annotations

import pytest

from tests.api.following import follow
from tests.support.stack import Stack

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
        heard = list(events)
    assert (heard[-1].name, heard[-1].data["state"], heard[-1].data["percent"]) == ("end", "succeeded", 100)
    percents = [event.data["percent"] for event in heard if event.data["percent"] is not None]
    assert percents == sorted(percents)
    told = list(dict.fromkeys(event.data["stage"] for event in heard if event.data["stage"]))
    assert told == [stage for stage in STAGES if stage in told]
    assert told[-1] == "index"

    for mode in ("hybrid", "semantic", "keyword"):
        found = stack.post("/api/search", {"query": "breaking ice on the mill race", "mode": mode}).json()
        assert found["results"][0]["title"] == "Keeping a mill pond", mode
        assert "maul" in found["results"][0]["text"], mode

    shown = stack.client.get(f"/api/documents/{job['document_id']}").json()
    assert shown["metadata"]["by"] == "miller"
    assert stack.client.delete(f"/api/documents/{job['document_id']}").status_code == 204
    assert stack.post("/api/search", {"query": "maul", "mode": "keyword"}).json()["total"] == 0
