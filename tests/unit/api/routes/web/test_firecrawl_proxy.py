"""/v2 passes all on to Firecrawl as it is, with our key alone, and knows the runs that it began."""

# ruff: noqa: E501  bodies and answers read best on a line

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.core import clock
from app.core.db import database
from app.main import create_app
from app.sources.models import CrawlSession
from tests.fakes.firecrawl import BATCH, CRAWL, KEY, FakeFirecrawl, reply
from tests.fakes.server import Request
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.firecrawl_events import event, page, send
from tests.support.problems import assert_problem
from tests.support.sender import SECRET
from tests.support.stack import API_SECRET
from tests.unit.api.conftest import Api, served

URL = "https://example.org/docs"


@pytest.fixture
def server() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl().running() as playing:
        yield playing


@pytest.fixture
def passing(app_env: SettingsEnv, server: FakeFirecrawl) -> Iterator[Api]:
    """An api with a Firecrawl; on both databases."""
    app_env(firecrawl_url=f"{server.url}/v2", firecrawl_api_key=KEY, webhook_secret=SECRET)
    with served(create_app()) as running:
        yield running


@pytest.fixture
def lite(sqlite_url: str, settings_env: SettingsEnv, server: FakeFirecrawl) -> Iterator[Api]:
    """The same on SQLite, and without a Redis."""
    settings_env(
        database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", firecrawl_url=server.url, firecrawl_api_key=KEY
    )
    with served(create_app()) as running:
        yield running


def _session(crawl: str) -> CrawlSession:
    row = database().read(
        lambda session: session.scalars(sa.select(CrawlSession).where(CrawlSession.crawl_id == crawl)).one()
    )
    assert isinstance(row, CrawlSession)
    return row


@pytest.mark.parametrize(
    ("path", "body", "operation", "run", "base"),
    [
        ("/v2/crawl", {"url": URL}, "crawl", CRAWL, URL),
        ("/v2/batch/scrape", {"urls": [URL, "https://b.org"]}, "scrape_batch", BATCH, URL),
        ("/v2/search", {"query": "queues"}, "search", "search-1", None),
        ("/v2/extract", {"urls": [URL]}, "extract", "extract-1", URL),
    ],
)
def test_a_start_is_recorded(
    passing: Api, server: FakeFirecrawl, path: str, body: Any, operation: str, run: str, base: str | None
) -> None:
    answer = passing.client.post(path, json=body)
    assert answer.status_code == 200
    meta = {"session_created": True, "auto_index": True, "operation_type": operation}
    assert answer.json()["id"] == run and answer.json()["_webhook_meta"] == meta
    row = _session(run)
    state = "completed" if operation == "search" else "pending"  # the answer to a search is all there is
    assert (row.operation, row.state, row.base_url) == (operation, state, base)
    assert passing.client.get(f"/api/metrics/crawls/{run}").json()["status"] == state
    assert passing.client.post(path, json=body).json()["_webhook_meta"] == meta
    assert server.requests[0].json == body


def test_events_move_a_pending_crawl_on(passing: Api, server: FakeFirecrawl) -> None:
    """Started, a page, cancelled: the session is the one that the start made."""
    passing.client.post("/v2/crawl", json={"url": URL})
    begun = _session(CRAWL)
    send(passing, event("crawl.started", crawl=CRAWL, metadata={"url": "https://other.org"}))
    row = _session(CRAWL)
    assert (row.state, row.base_url, row.initiated_at) == ("in_progress", URL, begun.initiated_at)
    assert row.started_at > begun.started_at
    send(passing, event("crawl.page", page("https://example.org/1"), crawl=CRAWL))
    answer = passing.client.delete(f"/v2/crawl/{CRAWL}")
    assert (answer.status_code, answer.json()) == (200, {"status": "cancelled"})
    row = _session(CRAWL)
    assert (row.state, row.success) == ("cancelled", False) and row.completed_at is not None
    passing.client.post("/v2/crawl", json={"url": URL})
    assert _session(CRAWL).state == "cancelled"


def test_an_event_may_come_before_the_answer(passing: Api) -> None:
    send(passing, event("crawl.started", crawl=CRAWL))
    assert passing.client.post("/v2/crawl", json={"url": URL}).json()["_webhook_meta"]["session_created"]
    row = _session(CRAWL)
    assert (row.state, row.base_url) == ("in_progress", URL)


def test_a_refused_cancel_leaves_the_crawl(passing: Api, server: FakeFirecrawl) -> None:
    passing.client.post("/v2/crawl", json={"url": URL})
    server.wrong = lambda asked: reply(409, {"success": False, "error": "Crawl is already completed"})
    assert passing.client.delete(f"/v2/crawl/{CRAWL}").status_code == 409
    server.wrong = lambda asked: reply(200, b"<html>")
    assert passing.client.delete(f"/v2/crawl/{CRAWL}").content == b"<html>"
    assert _session(CRAWL).state == "pending"
    server.wrong = lambda asked: None
    assert passing.client.delete(f"/v2/batch/scrape/{BATCH}").json()["success"]  # one that is not known


def test_what_is_not_recorded_passes_unchanged(lite: Api, server: FakeFirecrawl) -> None:
    bodies: list[Any] = [
        {"success": True, "data": {"markdown": "x"}}, b"<html>", [1], {"id": 7}, {"id": ""}, {"id": "x" * 300},
        b'{"id": "a\\u0000b"}', b"\xff\xfe", b"",
    ]  # fmt: skip
    for body in bodies:
        server.wrong = lambda asked, body=body: reply(200, body)  # type: ignore[misc]
        answer = lite.client.post("/v2/scrape", json={"url": URL})
        assert answer.content == reply(200, body).data()
        assert answer.headers["content-length"] == str(len(answer.content))
    server.wrong = lambda asked: reply(402, {"success": False, "id": "x"})
    assert lite.client.post("/v2/crawl", json={}).json() == {"success": False, "id": "x"}
    count = sa.select(sa.func.count()).select_from(CrawlSession)
    assert database().read(lambda session: session.scalar(count)) == 0


def test_an_answer_keeps_what_firecrawl_wrote(lite: Api, server: FakeFirecrawl) -> None:
    """Numbers, order and blanks are not rewritten, and the length is that of what is sent."""
    server.wrong = lambda asked: reply(200, b'{ "jobId": "j-1", "n": 1.10, "big": 12345678901234567890123 }\n')
    answer = lite.client.post("/v2/crawl", json={"url": URL})
    assert answer.text.startswith('{ "jobId": "j-1", "n": 1.10, "big": 12345678901234567890123 ,"_webhook_meta":')
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert _session("j-1").base_url == URL


def test_sql_may_be_away(lite: Api, settings_env: SettingsEnv) -> None:
    settings_env(database_url="sqlite:////nowhere/none.db")
    answer = lite.client.post("/v2/crawl", json={"url": URL})
    meta = {"session_created": False, "auto_index": True, "operation_type": "crawl"}
    assert (answer.status_code, answer.json()["id"], answer.json()["_webhook_meta"]) == (200, CRAWL, meta)
    assert lite.client.delete(f"/v2/crawl/{CRAWL}").json() == {"status": "cancelled"}


def test_query_body_and_headers_travel(lite: Api, server: FakeFirecrawl) -> None:
    """As they are, but for credentials, cookies and what holds between neighbours."""
    sent = {
        "x-idempotency-key": "k", "x-payment": "p", "content-type": "application/json; charset=utf-8", "cookie": "a=b",
        "proxy-authorization": "Basic x", "x-forwarded-for": "10.0.0.1", "connection": "keep-alive, x-own", "x-own": "1",
        "te": "trailers", "accept-encoding": "br",
    }  # fmt: skip
    body = b'{"url":  "https://a.org/\xc3\xbc", "n": 1.10}'
    assert lite.client.post("/v2/map?a=1&b=%2F&a=2&c=%C3%BC", content=body, headers=sent).status_code == 200
    (asked,) = server.requests
    assert (asked.path, asked.query, asked.body) == ("/v2/map", "a=1&b=%2F&a=2&c=%C3%BC", body)
    assert asked.header("authorization") == [f"Bearer {KEY}"]
    assert [asked.header(name) for name in ("x-idempotency-key", "x-payment", "content-type")] == [
        ["k"], ["p"], ["application/json; charset=utf-8"]
    ]  # fmt: skip
    for name in ("cookie", "proxy-authorization", "x-forwarded-for", "x-own", "te"):
        assert asked.header(name) == [], name
    assert asked.header("accept-encoding") == ["identity"]
    assert API_SECRET not in str(asked.headers)
    odd = httpx.Headers([(b"x-note", "é".encode("latin-1"))])
    assert lite.client.get("/v2/team/queue-status", headers=odd).status_code == 200
    assert server.requests[-1].header("x-note") == ["é"]


def test_pages_of_a_crawl_pass(lite: Api, server: FakeFirecrawl) -> None:
    answer = lite.client.get(f"/v2/crawl/{CRAWL}?skip=2&limit=5")
    assert answer.json() == server.part(server.requests[0], CRAWL, "/v2/crawl").body
    assert server.requests[0].query == "skip=2&limit=5"
    assert lite.client.get(f"/v2/crawl/{CRAWL}/errors").json()["robotsBlocked"]
    assert lite.client.get("/v2/crawl/active").json()["crawls"] == []
    assert lite.client.get(f"/v2/batch/scrape/{BATCH}").json()["total"] == 5
    assert lite.client.get("/v2/crawl/none").status_code == 404


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_lengths_and_encodings_are_true(lite: Api, server: FakeFirecrawl, gzipped: bool, size: int) -> None:
    body = {"data": "".join(str(number) for number in range(size // 6))}
    headers = {"etag": '"x"', "set-cookie": "a=b", "x-request-id": "theirs", "access-control-allow-origin": "*"}
    server.wrong = lambda asked: reply(200, body, headers, gzipped=gzipped)
    answer = lite.client.get(f"/v2/crawl/{CRAWL}")
    assert answer.json() == body
    assert "content-encoding" not in answer.headers
    if "content-length" in answer.headers:
        assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["etag"] == '"x"' and "set-cookie" not in answer.headers
    assert answer.headers.get_list("x-request-id") != ["theirs"] and len(answer.headers.get_list("date")) == 1
    assert "access-control-allow-origin" not in answer.headers
    posted = lite.client.post("/v2/scrape", json={"url": URL})
    assert posted.json() == body and int(posted.headers["content-length"]) == len(posted.content)


def test_what_breaks_off_breaks_off(lite: Api, server: FakeFirecrawl, settings_env: SettingsEnv) -> None:
    """A truncated short answer is a 502; a long answer that is partly sent ends truncated."""
    server.wrong = lambda asked: reply(200, {"a": "b"}, withheld_bytes=3)
    assert_problem(lite.client.get("/v2/crawl/active"), 502, "firecrawl_unavailable")
    assert_problem(lite.client.post("/v2/crawl", json={}), 502, "firecrawl_unavailable")
    server.wrong = lambda asked: reply(200, {"a": "b" * 3_000_000}, withheld_bytes=3)
    with pytest.raises(httpx.RemoteProtocolError):
        lite.client.get("/v2/crawl/active")
    server.wrong = lambda asked: reply(200, {"a": "b" * 3_000_000}, gzipped=True)
    settings_env(firecrawl_max_bytes=2_000_000)
    assert_problem(lite.client.get("/v2/crawl/active"), 502, "firecrawl_answer")
    assert_problem(lite.client.post("/v2/crawl", json={}), 502, "firecrawl_answer")
    server.wrong = lambda asked: reply(200, {"a": "b" * 3_000_000})
    with pytest.raises(httpx.RemoteProtocolError):
        lite.client.get("/v2/crawl/active")
    server.wrong = lambda asked: None
    assert lite.client.get("/v2/crawl/active").status_code == 200


@pytest.mark.parametrize("status", [204, 301, 400, 401, 404, 418, 429, 500, 503])
def test_any_status_passes(lite: Api, server: FakeFirecrawl, status: int) -> None:
    body = b"" if status == 204 else b'{"success": false, "error": "no"}'
    server.wrong = lambda asked: reply(status, body, {"retry-after": "7", "location": "http://127.0.0.1:9/"})
    answer = lite.client.post("/v2/map", json={})
    assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (status, body, "7")
    assert lite.client.get("/v2/concurrency-check").status_code == status


def test_slow_away_and_not_there(lite: Api, server: FakeFirecrawl, settings_env: SettingsEnv) -> None:
    settings_env(firecrawl_proxy_timeout_s=0.3)
    server.wrong = lambda asked: reply(200, {}, delay_s=30)
    for answer in (lite.client.post("/v2/scrape", json={}), lite.client.get("/v2/crawl/active")):
        assert_problem(answer, 504, "firecrawl_timeout")
        assert answer.json()["error"] == "Firecrawl API timeout"
    settings_env(firecrawl_url="http://127.0.0.1:9", firecrawl_proxy_timeout_s=30)
    answer = lite.client.post("/v2/scrape", json={})
    assert_problem(answer, 502, "firecrawl_unavailable")
    assert answer.json()["error"] == answer.json()["detail"]
    settings_env(firecrawl_url="")
    answer = lite.client.get("/v2/crawl/active")
    assert_problem(answer, 503, "firecrawl_not_configured")
    assert "MILLRACE_FIRECRAWL_URL" in answer.json()["detail"]


@pytest.fixture
def new_minute() -> Iterator[None]:
    """Let a minute's window begin now, so that it does not end while its requests are counted."""
    clock.shift(timedelta(seconds=60 - clock.now().timestamp() % 60))
    yield
    clock.shift(timedelta(0))


@pytest.mark.usefixtures("new_minute")
def test_who_may_pass(passing: Api, server: FakeFirecrawl, settings_env: SettingsEnv) -> None:
    assert_problem(passing.anyone.post("/v2/crawl", json={}), 401, "unauthenticated")
    with holder(passing, "read", tenant="acme") as reader:
        assert reader.get("/v2/crawl/active").status_code == 200
        assert_problem(reader.post("/v2/crawl", json={"url": URL}), 403, "scope_missing")
    with holder(passing, "write", tenant="acme") as writer:
        assert writer.post("/v2/crawl", json={"url": URL}).status_code == 200
    assert _session(CRAWL).tenant == "acme"
    assert {value for asked in server.requests for value in asked.header("authorization")} == {f"Bearer {KEY}"}
    settings_env(firecrawl_proxy_auth="off", rate_limits="on")
    anyone = passing.anyone
    assert anyone.post("/v2/batch/scrape", json={"urls": [URL]}).status_code == 200
    assert _session(BATCH).tenant == "default"
    assert anyone.get("/v2/crawl/active", headers={"authorization": "Bearer fc-theirs"}).status_code == 200
    assert server.requests[-1].header("authorization") == [f"Bearer {KEY}"]
    answers = [anyone.get("/v2/team/queue-status") for _ in range(101)]
    assert {answer.status_code for answer in answers[:100]} == {200}
    assert_problem(answers[-1], 429, "rate_limited")
    assert anyone.get("/v2/crawl/active").status_code == 200


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/", "/v2/none", "/v2/crawl/a/b", "/v2/crawl/..%2f..%2fadmin", "/v2/team/../admin", "/v1/scrape"]
)
def test_other_paths_are_not_there(lite: Api, server: FakeFirecrawl, path: str) -> None:
    assert lite.client.get(path).status_code == 404
    assert lite.client.get("/v2/crawl/%2e%2e").status_code in (404, 422)
    assert server.requests == []


def test_no_body_breaks_it(lite: Api, server: FakeFirecrawl) -> None:
    for body in (b"", b'{"urls": 7}', b'{"urls": []}', b'{"url": {"a": 1}}', b"{}"):
        assert lite.client.post("/v2/crawl", content=body).status_code == 200, body
        assert server.requests[-1].body == body
    for body in (b"{", b"[]", b"7", b"\xff", b"[" * 100_000):
        assert lite.client.post("/v2/crawl", content=body).status_code == 422, body
    assert len(server.requests) == 5


def test_all_routes_of_the_contract_are_there(lite: Api, server: FakeFirecrawl) -> None:
    seen: list[Request] = server.requests
    server.wrong = lambda asked: reply(200, {"path": asked.path})
    operations = {
        (method.upper(), path.format(run_id="r-1"))
        for path, there in lite.anyone.get("/openapi.json").json()["paths"].items()
        if path.startswith("/v2/")
        for method in there
    }
    assert len(operations) == 24
    for method, path in operations:
        answer = lite.client.request(method, path, content=b"{}" if method == "POST" else None)
        assert json.loads(answer.content) == {"path": path}
    assert {(asked.method, asked.path) for asked in seen} == operations
