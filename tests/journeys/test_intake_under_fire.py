"""Pages sent at 200 a second while Redis goes and comes and the api is killed: each that was accepted is indexed, once.

The sender takes a 2xx as accepted and never sends that again; what got no answer it sends again, as the cloud ones do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.db import database
from app.documents.jobs import IngestDocument
from app.documents.models import Document, DocumentVersion
from app.jobs.models import AttemptRow, JobRow
from app.jobs.states import OPEN
from app.search.models import Chunk
from app.sources.models import Delivery
from tests.bench.table import quantile
from tests.journeys.conftest import Ledger
from tests.support.sender import SECRET, Sender, Sent, event, page_event, url_of, word_of
from tests.support.services import RedisServer
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]

CRAWL = "under-fire"
RATE = 200.0
LONG = pytest.mark.skipif("MILLRACE_LONG" not in os.environ, reason="a minute long: make chaos runs it")


@pytest.mark.parametrize(
    ("seconds", "strikes"),
    [
        pytest.param(6, 1, id="short"),
        pytest.param(60, 6, id="long", marks=[LONG, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]),
    ],
)
def test_every_accepted_page_is_indexed_once(
    stack: Stack, ledger: Ledger, redis_server: RedisServer, seconds: int, strikes: int
) -> None:
    """Through outages of Redis and deaths of the api; and the same events sent again are no work at all."""
    stack.env["MILLRACE_WEBHOOK_SECRET"] = SECRET
    stack.start(workers=1)
    wait_until(lambda: stack.client.get("/readyz").status_code == 200, what="the system")
    count = int(RATE * seconds)
    events = [page_event(CRAWL, number) for number in range(count)]
    _send(stack, [event("crawl.started", CRAWL)])
    sender = Sender(stack.port, events, RATE).start()
    dark = _strike(stack, redis_server, sender, count, strikes)
    sent = sender.join(timeout_s=300)
    assert all(delivery.accepted for delivery in sent)
    assert {status for delivery in sent for status in delivery.refusals} == set(), "an answer was no 2xx"
    _tell(sent, dark)
    _send(stack, [event("crawl.completed", CRAWL)])
    jobs = [job_id for delivery in sent for job_id in json.loads(delivery.body)["job_ids"]]
    assert len(set(jobs)) == count
    _wait_for_rest(count)
    _check_rows(jobs, count)
    _check_search(stack, count)
    _check_metrics(stack, count)
    _check_window(redis_server)
    again = Sender(stack.port, events, RATE).start().join(timeout_s=300)
    first, second = (
        [(delivery.status, json.loads(delivery.body)) for delivery in answers] for answers in (sent, again)
    )
    assert second == first, "a delivery got another answer than at first"
    _wait_for_rest(count)
    _check_rows(jobs, count)


def _send(stack: Stack, events: Sequence[bytes]) -> None:
    for delivery in Sender(stack.port, events, RATE).start().join(timeout_s=60):
        assert delivery.status == 200, delivery.body


def _strike(stack: Stack, redis_server: RedisServer, sender: Sender, count: int, strikes: int) -> list[tuple[int, int]]:
    """Each strike has its share of the events: Redis is away from 20 to 60 of 100, the api is killed at 40 and 80.

    The numbers of the events that were due while Redis was away.
    """
    dark = []
    for strike in range(strikes):

        def reach(percent: int, strike: int = strike) -> int:
            number = count * (100 * strike + percent) // (100 * strikes)
            wait_until(lambda: len(sender.sent) >= number, timeout_s=120, what=f"event {number} to be sent")
            return len(sender.sent)

        reach(20)
        redis_server.kill()
        gone = len(sender.sent)
        reach(40)
        _restart_api(stack)
        back = reach(60)
        redis_server.start()
        dark.append((gone, back))
        reach(80)
        _restart_api(stack)
    return dark


def _restart_api(stack: Stack) -> None:
    """Kill the api while it answers and start it again; the sender goes on."""
    assert stack.api is not None
    stack.api.kill()
    stack.api.start()
    stack.wait_for_api()


def _tell(sent: Sequence[Sent], dark: Sequence[tuple[int, int]]) -> None:
    """Of the tries that were answered; a retry after a kill waited for the api to start, which is not told here."""
    in_the_dark = [delivery for gone, back in dark for delivery in sent[gone:back]]
    for label, some in (("all", sent), ("while Redis was away", in_the_dark)):
        took = [delivery.try_ms for delivery in some if delivery.tries == 1]
        tries = sum(delivery.tries - 1 for delivery in some)
        if not took:
            print(f"{label}: {len(some)} events, none answered at its first try; {tries} further tries")
            continue
        p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
        print(f"{label}: {len(some)} events, answered in p50 {p50:.1f} ms, p99 {p99:.1f} ms; {tries} further tries")


def _rows(query: Any) -> Sequence[sa.Row[Any]]:
    return database().read(lambda session: session.execute(query).all())


def _wait_for_rest(count: int) -> None:
    """Until no job waits or runs."""
    open_jobs = sa.select(sa.func.count()).select_from(JobRow).where(JobRow.state.in_(OPEN))
    wait_until(lambda: _rows(open_jobs)[0][0] == 0, timeout_s=60 + count / 20, poll_s=0.2, what="all jobs to end")


def _check_rows(jobs: Sequence[str], count: int) -> None:
    """One delivery, document, version and job a page, all done at the first try, with the chunks of one indexing."""
    deliveries = _rows(sa.select(Delivery.jobs).where(Delivery.event_type == "crawl.page"))
    assert [tuple(row) for row in deliveries] == [(1,)] * count
    documents = _rows(sa.select(Document.id, Document.url, Document.version_id, Document.chunk_count))
    assert sorted(row.url for row in documents) == sorted(url_of(CRAWL, number) for number in range(count))
    versions = _rows(sa.select(DocumentVersion.document_id, DocumentVersion.id, DocumentVersion.state))
    assert sorted(map(tuple, versions)) == sorted((row.id, row.version_id, "current") for row in documents)
    made = _rows(sa.select(JobRow.id, JobRow.document_id, JobRow.state, JobRow.result, JobRow.kind))
    ingests = [row for row in made if row.kind == IngestDocument.kind]
    assert sorted(row.id for row in ingests) == sorted(jobs)
    assert sorted(row.document_id for row in ingests) == sorted(row.id for row in documents)
    assert {(row.state, row.result["status"]) for row in ingests} == {("succeeded", "indexed")}
    runs = _rows(sa.select(AttemptRow.job_id, AttemptRow.outcome).where(AttemptRow.job_id.in_(sa.select(JobRow.id))))
    assert sorted(row.job_id for row in runs if row.outcome == "succeeded") == sorted(row.id for row in made)
    chunks = _rows(sa.select(Chunk.document_id, Chunk.version_id, Chunk.ordinal))
    expected = [(row.id, row.version_id, n) for row in documents for n in range(row.chunk_count)]
    assert sorted(map(tuple, chunks)) == sorted(expected)
    assert all(row.chunk_count for row in documents)


def _check_search(stack: Stack, count: int) -> None:
    """The word of each page finds that page alone."""
    for number in range(count):
        body = {"query": word_of(number), "mode": "keyword", "limit": 5}
        response = stack.post("/api/search", body).json()
        assert [hit["url"] for hit in response["results"]] == [url_of(CRAWL, number)], word_of(number)


def _check_metrics(stack: Stack, count: int) -> None:
    crawl = stack.client.get(f"/api/metrics/crawls/{CRAWL}").json()
    counts = {name: crawl[name] for name in ("status", "total_pages", "pages_indexed", "pages_failed")}
    assert counts == {"status": "completed", "total_pages": count, "pages_indexed": count, "pages_failed": 0}


def _check_window(redis_server: RedisServer) -> None:
    """No message is left on Redis: neither in a queue nor in a worker's hands."""
    with redis_server.client() as client:

        def left() -> dict[str, int]:
            sizes = {name: _size(client, name) for name in client.scan_iter("mr:q:*")}
            return {name: size for name, size in sizes.items() if size}

        wait_until(lambda: not left(), timeout_s=20, what="Redis to hold no message")


def _size(client: Any, name: str) -> int:
    match client.type(name):
        case "list":
            return int(client.llen(name))
        case "hash":
            return int(client.hlen(name))
        case "set":
            return int(client.scard(name))
    return 0
