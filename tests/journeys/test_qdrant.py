"""The index in a real Qdrant: killed with the workers under writes, it loses nothing and doubles nothing."""

from __future__ import annotations

import pytest

from app.core.http import Response
from tests.journeys.conftest import Ledger
from tests.support.qdrant import QdrantServer
from tests.support.stack import Stack, verify_index
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]


def _search(stack: Stack, text: str) -> Response:
    return stack.post("/api/search", {"query": text, "mode": "keyword", "limit": 100})


def _total(stack: Stack, text: str) -> int:
    answer = _search(stack, text)
    return int(answer.json()["total"]) if answer.status_code == 200 else -1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # test_writers.py has Qdrant with PostgreSQL
def test_qdrant_and_a_worker_killed_under_writes(stack: Stack, ledger: Ledger, qdrant_server: QdrantServer) -> None:
    """Documents accepted in its outage are found later, and /readyz reports the outage; the index ends equal to SQL."""
    stack.env |= {"MILLRACE_SEARCH_ENGINE": "qdrant", "MILLRACE_QDRANT_URL": qdrant_server.url}
    stack.start(workers=2)
    wait_until(lambda: stack.client.get("/readyz").status_code == 200, what="all services, Qdrant among them")
    assert stack.client.get("/readyz").json()["services"]["search"] == "healthy"

    def give(n: int) -> str:
        body = {"external_id": str(n), "text": f"The mill grinds grain number{n} in the common house."}
        return str(stack.post("/api/documents", body).json()["id"])

    jobs = [give(n) for n in range(20)]
    wait_until(lambda: _total(stack, "common") > 0, timeout_s=60, what="a first hit")
    qdrant_server.kill()
    stack.workers[0].kill()
    jobs += [give(n) for n in range(20, 40)]
    jobs += [give(n) for n in range(5)]  # once more, unchanged
    assert {row.state for row in ledger.wait_all(jobs, timeout_s=90)} == {"succeeded"}
    answer = _search(stack, "common")
    assert answer.status_code == 503 and "Qdrant" in answer.json()["detail"]
    ready = stack.client.get("/readyz")
    assert ready.status_code == 503 and ready.json()["missing"] == ["search"]
    assert stack.client.get("/health").json()["services"]["search"] == "not reachable"
    stack.workers[0].start()
    qdrant_server.start()
    wait_until(lambda: _total(stack, "common") == 40, timeout_s=60, what="all documents to be found")
    for n in (0, 4, 19, 20, 39):
        assert _total(stack, f"number{n}") == 1
    report = verify_index(stack)
    assert (report["engine"], report["documents"], report["chunks"], report["vectors"]) == ("qdrant", 40, 40, 40)
    wait_until(
        lambda: stack.client.get("/health").json()["search"]["behind"] == {"changes": 0, "seconds": 0.0},
        timeout_s=20,
        what="the index to be up to date",
    )
    metrics = stack.client.get("/metrics").text
    assert "millrace_search_up 1.0" in metrics and "millrace_search_changes_behind" in metrics
