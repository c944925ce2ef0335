"""A crawl that Firecrawl does for us is one job too: begun once, read to its end, stopped with its job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core.db import database
from app.documents.models import DocumentVersion
from app.jobs import testing as jobs
from app.jobs.models import JobRow
from app.main import create_app
from tests.fakes.firecrawl import CRAWL, FakeFirecrawl, document, reply
from tests.fakes.server import Request, Response
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.firecrawl_events import event, send
from tests.support.firecrawl_events import page as event_page
from tests.support.problems import assert_problem
from tests.unit.api.conftest import Api, served


def by_firecrawl(api: Api, **more: Any) -> dict[str, Any]:
    crawl: dict[str, Any] = api.client.post("/api/crawls", json={"url": "https://example.org/", **more}).json()
    return crawl


def test_configured_firecrawl_runs_the_crawl(with_remote: Api, remote: FakeFirecrawl) -> None:
    """Started once with our rules, all its parts read, its failures told; its webhooks of this crawl add nothing."""
    crawl = by_firecrawl(with_remote, include=["/docs/*"], limit=7, tags=["t"])
    jobs.drain()
    [start_request] = [request for request in remote.requests if request.method == "POST"]
    assert start_request.json["includePaths"] == ["docs/.*"] and start_request.json["limit"] == 7
    assert start_request.header("x-idempotency-key") == [crawl["id"]]
    job = with_remote.client.get(f"/api/jobs/{crawl['id']}").json()
    assert (job["state"], job["result"]["indexed"], job["result"]["failed"]) == ("succeeded", 5, 1)
    before = database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(JobRow)))
    answer = send(with_remote, event("crawl.page", event_page("https://example.org/1"), crawl=CRAWL))
    assert answer.json() == {"status": "acknowledged", "event_type": "crawl.page"}
    assert database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(JobRow))) == before
    assert [row["crawl_id"] for row in with_remote.client.get("/api/metrics/crawls").json()["data"]] == [crawl["id"]]


def test_crawl_survives_an_outage_of_firecrawl(with_remote: Api, remote: FakeFirecrawl) -> None:
    """The job goes on where it was: no second crawl is started, no page is indexed twice."""

    def wrong(request: Request) -> Response | None:
        return reply(502, b"") if "skip=2" in request.query else None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    assert with_remote.client.get(f"/api/jobs/{crawl['id']}").json()["state"] == "retrying"
    remote.wrong = lambda request: None
    jobs.drain(later=True)
    assert with_remote.client.get(f"/api/jobs/{crawl['id']}").json()["result"]["indexed"] == 5
    assert sum(request.method == "POST" for request in remote.requests) == 1
    versions = database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(DocumentVersion)))
    assert versions == 5


def test_start_with_a_lost_answer_resumes_the_same_crawl(with_remote: Api, remote: FakeFirecrawl) -> None:
    def wrong(request: Request) -> Response | None:
        if request.method == "POST":
            return reply(409, {"success": False, "error": "Idempotency key already used"})
        if request.path.endswith("/active"):
            return reply(200, {"success": True, "crawls": [{"id": CRAWL, "url": "https://example.org/"}]})
        return None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    assert with_remote.client.get(f"/api/jobs/{crawl['id']}").json()["result"]["indexed"] == 5


def test_crawl_that_failed_at_firecrawl_fails_with_its_reason(with_remote: Api, remote: FakeFirecrawl) -> None:
    """The received pages are indexed; the crawl ends with the reason."""

    def wrong(request: Request) -> Response | None:
        if request.method == "GET" and request.path == f"/v2/crawl/{CRAWL}":
            data = [] if "skip=1" in request.query else [document("https://example.org/1")]
            return reply(200, {"success": True, "status": "failed", "total": 9, "completed": 1, "data": data})
        return None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    view = with_remote.client.get(f"/api/metrics/crawls/{crawl['id']}").json()
    assert (view["status"], view["pages_indexed"]) == ("failed", 1) and "failed" in view["error_message"]


def test_cancelled_crawl_is_cancelled_at_firecrawl(with_remote: Api, remote: FakeFirecrawl) -> None:
    remote.wrong = lambda request: reply(503, b"") if "skip" in request.query else None
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    remote.wrong = lambda request: None
    assert with_remote.client.post(f"/api/jobs/{crawl['id']}/cancel").status_code < 300
    jobs.drain()
    assert [request.path for request in remote.requests if request.method == "DELETE"] == [f"/v2/crawl/{CRAWL}"]
    assert with_remote.client.get(f"/api/metrics/crawls/{crawl['id']}").json()["status"] == "cancelled"


def test_crawl_cancelled_at_firecrawl_is_started_again(with_remote: Api, remote: FakeFirecrawl) -> None:
    """By another key, which Firecrawl would refuse else; the run that was stopped is not asked again."""
    gone, runs = reply(200, {"success": True, "status": "cancelled", "total": 9, "completed": 0, "data": []}), []

    def wrong(asked: Request) -> Response | None:
        if asked.method == "POST" and asked.path == "/v2/crawl":
            runs.append(asked.header("x-idempotency-key")[0])
            run = CRAWL if len(runs) == 1 else CRAWL[:-1] + "9"
            return reply(200, {"success": True, "id": run, "url": "https://example.org/"})
        if asked.method == "GET" and asked.path == f"/v2/crawl/{CRAWL}":
            return gone if any(request.method == "DELETE" for request in remote.requests) else reply(503, b"")
        if asked.path == f"/v2/crawl/{CRAWL[:-1]}9":
            data = [] if "skip=1" in asked.query else [document("https://example.org/1")]
            return reply(200, {"success": True, "status": "completed", "total": 1, "completed": 1, "data": data})
        return reply(200, {"success": True, "errors": []}) if asked.path.endswith("/errors") else None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    with_remote.client.post(f"/api/jobs/{crawl['id']}/cancel")
    jobs.drain()
    assert with_remote.client.post(f"/api/jobs/{crawl['id']}/retry").status_code == 202
    jobs.drain()
    view = with_remote.client.get(f"/api/metrics/crawls/{crawl['id']}").json()
    assert (view["status"], view["pages_indexed"]) == ("completed", 1), view
    assert len(runs) == len(set(runs)) == 2


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "169.254.169.254", "[::1]", "127.1", "2130706433", "0x7f000001", "localhost", "qdrant:6333"]
)
def test_private_addresses_are_not_sent_to_firecrawl(lite_remote: Api, remote: FakeFirecrawl, host: str) -> None:
    """It stands where our own services do: a page, a scrape, a batch and a crawl are refused here."""
    url = f"http://{host}/"
    client = lite_remote.client
    for path, body in (("/api/documents", {"url": url}), ("/api/crawls", {"url": url})):
        job = client.post(path, json=body).json()
        jobs.drain()
        ended = client.get(f"/api/jobs/{job['id']}").json()
        assert (ended["state"], ended["error"]["code"]) == ("failed", "private_address"), ended
    assert client.post("/api/v2/scrape", json={"url": url}).json()["error"]["code"] == "private_address"
    assert_problem(client.post("/api/v2/scrape", json={"urls": ["https://a.org/", url]}), 422, "private_address")
    assert remote.requests == []


@pytest.fixture
def lite_remote(sqlite_url: str, redis_url: str, settings_env: SettingsEnv, remote: FakeFirecrawl) -> Iterator[Api]:
    settings_env(database_url=sqlite_url, redis_url=redis_url, firecrawl_url=remote.url)
    with served(create_app()) as running:
        yield running


def test_an_event_before_firecrawl_s_answer_leaves_no_crawl_open(with_remote: Api, remote: FakeFirecrawl) -> None:
    send(with_remote, event("crawl.started", crawl=CRAWL))
    by_firecrawl(with_remote)
    jobs.drain()
    send(with_remote, event("crawl.completed", crawl=CRAWL))
    listed = with_remote.client.get("/api/metrics/crawls").json()["data"]
    assert [row["status"] for row in listed] == ["completed", "completed"]


def test_events_of_a_crawl_belong_to_its_tenant(with_remote: Api, remote: FakeFirecrawl) -> None:
    """A crawl started with /v2: its pages and reports belong to the tenant that started it."""
    with holder(with_remote, "read", "write", tenant="acme") as acme:
        assert acme.post("/v2/crawl", json={"url": "https://example.org/"}).json()["id"] == CRAWL
        send(with_remote, event("crawl.page", event_page("https://example.org/1"), {"markdown": "x"}, crawl=CRAWL))
        jobs.drain()
        send(with_remote, event("crawl.completed", crawl=CRAWL))
        view = acme.get(f"/api/metrics/crawls/{CRAWL}").json()
        assert (view["status"], view["pages_indexed"], view["pages_failed"]) == ("completed", 1, 1)
        assert acme.get("/api/metrics/crawls").json()["data"] == [view]
        assert [document["url"] for document in acme.get("/api/documents").json()["data"]] == ["https://example.org/1"]
    assert with_remote.client.get("/api/documents").json()["data"] == []
    assert with_remote.client.get("/api/metrics/crawls").json()["data"] == []


def test_single_pages_are_fetched_by_firecrawl(with_remote: Api, remote: FakeFirecrawl) -> None:
    """An unchanged page ends as unchanged, although each scrape has a different id."""
    remote.wrong = lambda request: (
        reply(200, {"success": True, "data": document(request.json["url"], scrapeId=str(len(remote.requests)))})
        if request.path == "/v2/scrape"
        else None
    )
    for status in ("indexed", "unchanged"):
        job = with_remote.client.post("/api/documents", json={"url": "https://example.org/one"}).json()
        jobs.drain()
        assert with_remote.client.get(f"/api/jobs/{job['id']}").json()["result"]["status"] == status
