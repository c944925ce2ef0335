"""Four workers index while the api searches and one of them is killed every second: all is there, and once."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from tests.journeys.conftest import Ledger
from tests.support.stack import Stack, verify_index
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.slow, pytest.mark.timeout(300)]

DOCUMENTS = 120
KILLS = 5


@pytest.mark.parametrize(
    ("database_url", "engine"),
    [("sqlite", "embedded"), ("postgresql", "embedded"), ("postgresql", "qdrant")],
    indirect=["database_url"],
)
def test_rows_vectors_and_postings_are_the_same(
    stack: Stack, ledger: Ledger, engine: str, request: pytest.FixtureRequest
) -> None:
    """Afterwards the index is proven, every document is found by its own rare word, none twice, none gone."""
    if engine == "qdrant":
        url = request.getfixturevalue("qdrant_url")
        stack.env |= {"MILLRACE_SEARCH_ENGINE": "qdrant", "MILLRACE_QDRANT_URL": url}
    stack.start(workers=4)
    dice = random.Random(engine)
    jobs, answers, stop = [], Counter[int](), threading.Event()

    def search() -> None:
        while not stop.wait(0.05):
            answer = stack.client.post("/api/search", json={"query": "miller", "limit": 100})
            answers[answer.status_code] += 1
            if answer.status_code == 200:
                ids = [hit["document_id"] for hit in answer.json()["results"]]
                assert len(ids) == len(set(ids))

    searching = threading.Thread(target=search)
    searching.start()
    try:
        for n in range(DOCUMENTS):
            text = f"# Page {n}\n\n" + f"The miller of zq{n}x grinds. " * 60 + "\n\n" + "Water turns the wheel. " * 90
            jobs.append(stack.post("/api/documents", {"external_id": f"{n}", "markdown": text}).json()["id"])
        for _ in range(KILLS):
            worker = dice.choice(stack.workers)
            worker.kill()
            stop.wait(1.0)
            worker.start()
            n = dice.randrange(DOCUMENTS)  # and some again, changed
            text = f"# Page {n}\n\nThe miller of zq{n}x has moved. " * 3
            jobs.append(stack.post("/api/documents", {"external_id": f"{n}", "markdown": text}).json()["id"])
        rows = ledger.wait_all(jobs, timeout_s=120)
    finally:
        stop.set()
        searching.join(30)
    assert {row.state for row in rows} == {"succeeded"}
    assert set(answers) <= {200, 503}
    # An index outside of SQL may still be built for the first time when the last document is in.
    assert answers[200] > 0 or engine == "qdrant"
    report = verify_index(stack)
    assert report["documents"] == DOCUMENTS and report["chunks"] == report["vectors"] > DOCUMENTS

    def total_hits(n: int) -> int:
        return int(stack.post("/api/search", {"query": f"zq{n}x", "mode": "keyword"}).json()["total"])

    wait_until(lambda: total_hits(DOCUMENTS - 1) == 1, timeout_s=30, what="the last document to be found")
    assert [n for n in range(DOCUMENTS) if total_hits(n) != 1] == []
