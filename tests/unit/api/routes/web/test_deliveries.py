"""Firecrawl's events: verified, stored, answered as the contract says, each page one job, each delivery once."""

# ruff: noqa: E501  bodies and answers read best on a line

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.db import database
from app.core.settings import get_settings
from app.jobs.models import JobRow
from app.main import create_app
from app.sources.models import CrawlSession, Delivery
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.support.firecrawl_events import event, page, send, sign
from tests.support.problems import assert_problem
from tests.support.rows import count_rows
from tests.support.sender import PATH, SECRET
from tests.support.statements import counting
from tests.unit.api.conftest import Api, served


@pytest.fixture
def intake(app_env: SettingsEnv) -> Iterator[Api]:
    """An api that has a secret for webhooks; on both databases."""
    app_env(webhook_secret=SECRET)
    with served(create_app()) as running:
        yield running


@pytest.fixture
def lite_intake(sqlite_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    """The same on SQLite, and without a Redis: no answer needs one."""
    settings_env(database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", webhook_secret=SECRET)
    with served(create_app()) as running:
        yield running


def _work(answer: httpx.Response) -> None:
    desk = Desk(database())
    for job_id in answer.json()["job_ids"]:
        desk.work(job_id)


def test_events_of_a_whole_crawl_are_indexed(intake: Api) -> None:
    """Started, pages, completed: a job for each page, and a session whose numbers are true whenever they are read."""
    started = send(
        intake, event("crawl.started", metadata={"url": "https://a.org", "initiated_at": "2026-01-02T03:04:05Z"})
    )
    assert (started.status_code, started.json()) == (200, {"status": "acknowledged", "event_type": "crawl.started"})
    pages = send(
        intake, event("crawl.page", page("https://a.org/1"), page("https://a.org/2", title=["A", "B"], other=7))
    )
    assert pages.status_code == 202
    assert pages.json() == {"status": "queued", "queued_jobs": 2, "job_ids": pages.json()["job_ids"]}
    metrics = intake.client.get("/api/metrics/crawls/c-1").json()
    assert (metrics["status"], metrics["total_pages"], metrics["pages_indexed"]) == ("in_progress", 2, 0)
    [stored] = intake.client.get("/api/metrics/operations?operation_type=content_storage").json()["metrics"]
    assert (stored["operation_name"], stored["success"], stored["job_id"]) == ("store_batch", True, None)
    assert stored["request_id"] == pages.headers["x-request-id"]
    _work(pages)
    assert send(intake, event("crawl.completed", "https://a.org/1")).json()["event_type"] == "crawl.completed"
    metrics = intake.client.get("/api/metrics/crawls/c-1?include_per_page=true").json()
    assert (metrics["status"], metrics["success"], metrics["crawl_url"]) == ("completed", True, "https://a.org")
    assert (metrics["pages_indexed"], metrics["pages_failed"]) == (2, 0)
    assert metrics["duration_ms"] >= 0 and metrics["e2e_duration_ms"] > metrics["duration_ms"]
    assert set(metrics["aggregate_timing"]) == {"chunking_ms", "embedding_ms", "qdrant_ms", "bm25_ms"}
    assert [page["success"] for page in metrics["per_page_metrics"]] == [True, True]
    assert [row["crawl_id"] for row in intake.client.get("/api/metrics/crawls").json()["data"]] == ["c-1"]
    result = intake.client.post("/api/search", json={"query": "heron", "mode": "keyword"}).json()
    assert result["total"] == 2 and {hit["metadata"]["source_type"] for hit in result["results"]} == {"firecrawl"}
    second = next(hit for hit in result["results"] if hit["url"].endswith("/2"))
    assert second["title"] == "A" and second["metadata"]["other"] == 7
    content = intake.client.get(f"/api/content/{second['id']}").json()
    assert (content["url"], content["crawl_session_id"]) == ("https://a.org/2", "c-1")
    assert content["markdown"] == "The heron stands." and content["content_source"] == "firecrawl"
    by_url = intake.client.get("/api/content/by-url", params={"url": "https://A.org/2?utm_source=x"}).json()
    assert [document["id"] for document in by_url] == [content["id"]]
    assert len(intake.client.get("/api/content/by-session/c-1").json()) == 2


def test_repeated_delivery_starts_no_second_job(intake: Api) -> None:
    """The same bytes again: the same answer and no other job; another event about the page is another."""
    first = send(intake, event("crawl.page", page("https://a.org/1")))
    again = send(intake, event("crawl.page", page("https://a.org/1")))
    assert first.json() == again.json() and again.status_code == 202
    assert count_rows(JobRow) == count_rows(Delivery) == 1
    changed = send(intake, event("crawl.page", page("https://a.org/1", "Other words.")))
    assert changed.json()["job_ids"] != first.json()["job_ids"]
    listed = intake.client.get("/api/deliveries/in?source=firecrawl&outcome=accepted").json()["data"]
    assert [delivery["repeats"] for delivery in listed] == [0, 1]


def test_delivery_can_be_replayed(intake: Api) -> None:
    body = event("batch_scrape.page", page("https://a.org/1", "Long. " * 20_000), crawl="b-1")
    taken = send(intake, body)
    _work(taken)
    [delivery] = intake.client.get("/api/deliveries/in").json()["data"]
    shown = intake.client.get(f"/api/deliveries/in/{delivery['id']}").json()
    assert shown["body"] is None and shown["size_bytes"] > 64 * 1024  # kept as a blob
    replayed = intake.client.post(f"/api/deliveries/in/{delivery['id']}/replay").json()
    assert replayed["status"] == 202 and replayed["answer"]["queued_jobs"] == 1
    assert Desk(database()).work(replayed["answer"]["job_ids"][0])["status"] == "unchanged"
    assert intake.client.get(f"/api/deliveries/in/{delivery['id']}").json()["replayed_at"]
    with holder(intake, "read") as reader:
        assert_problem(reader.post(f"/api/deliveries/in/{delivery['id']}/replay"), 403, "scope_missing")
    assert_problem(intake.client.post("/api/deliveries/in/999/replay"), 404, "delivery_not_found")


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (event("crawl.page"), 200, {"status": "no_documents", "queued_jobs": 0, "job_ids": []}),
        (event("batch_scrape.started"), 200, {"status": "acknowledged", "event_type": "batch_scrape.started"}),
        (event("extract.failed", error="no"), 200, {"status": "acknowledged", "event_type": "extract.failed"}),
        (event("batch_scrape.completed", {"url": "https://a.org"}), 200, {"status": "acknowledged", "event_type": "batch_scrape.completed"}),
        ({"success": False, "type": "crawl.page", "id": "x", "error": "403"}, 200, {"status": "acknowledged", "message": "Failed event received and logged", "event_id": "x"}),
        ({"success": True, "type": "crawl.started", "jobId": "v0"}, 200, {"status": "acknowledged", "event_type": "crawl.started"}),
    ],
)  # fmt: skip
def test_answers_match_the_contract(lite_intake: Api, body: Any, status: int, answer: Any) -> None:
    result = send(lite_intake, body)
    assert (result.status_code, result.json()) == (status, answer)


def test_bad_document_does_not_stop_the_good_ones(lite_intake: Api) -> None:
    """It is named, the others are taken; links in place of documents are none."""
    result = send(
        lite_intake,
        event("crawl.page", page("https://a.org/1"), {"markdown": "x"}, {"metadata": {"url": "https://a.org/3"}}, "https://a.org/4"),
    ).json()  # fmt: skip
    assert result["queued_jobs"] == 1
    assert [failure["url"] for failure in result["failed_documents"]] == [None, "https://a.org/3"]


def test_a_failed_crawl_is_closed_with_its_reason(lite_intake: Api) -> None:
    """Also where no event told that it began; and a late page does not open it again."""
    send(lite_intake, event("crawl.page", page("https://a.org/1"), crawl="f-1"))
    send(lite_intake, event("crawl.failed", crawl="f-1", error="the site refused"))
    send(lite_intake, event("crawl.page", page("https://a.org/2"), crawl="f-1"))
    result = lite_intake.client.get("/api/metrics/crawls/f-1").json()
    assert (result["status"], result["success"], result["error_message"]) == ("failed", False, "the site refused")
    assert result["total_pages"] == 2 and result["completed_at"]
    send(lite_intake, {"success": False, "type": "batch_scrape.completed", "id": "f-2", "error": "out of credits"})
    assert lite_intake.client.get("/api/metrics/crawls/f-2").json()["error_message"] == "out of credits"
    assert_problem(lite_intake.client.get("/api/metrics/crawls/none"), 404, "crawl_not_found")


def test_delivery_requires_a_valid_signature(lite_intake: Api, settings_env: SettingsEnv) -> None:
    body = json.dumps(event("crawl.started")).encode()
    post = lite_intake.anyone.post
    assert_problem(post(PATH, content=body), 401, "unauthenticated")
    for signature, status in [
        ("sha256=" + "0" * 64, 401), (sign(body, "x" * 40), 401), (sign(body + b" "), 401), ("sha1=abc", 400),
        ("sha256=abc", 400), ("0" * 64, 400),
    ]:  # fmt: skip
        assert post(PATH, content=body, headers={"x-firecrawl-signature": signature}).status_code == status, signature
    upper = "sha256=" + sign(body).removeprefix("sha256=").upper()
    assert post(PATH, content=body, headers={"x-firecrawl-signature": upper}).status_code == 200
    assert count_rows(Delivery) == 1
    settings_env(webhook_secret="")
    assert_problem(post(PATH, content=body, headers={"x-firecrawl-signature": upper}), 401, "unauthenticated")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b'{"type": "crawl.page"', b'{"type": 7}', b'{"type": "shop.order"}', b"\xff\xfe",
             b'{"type": "crawl.page", "id": {"a": 1}}', b'{"type": "crawl.page", "success": "yes"}', b"[" * 100_000],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
def test_malformed_event_is_422_and_not_stored(lite_intake: Api, body: bytes) -> None:
    answer = send(lite_intake, body)
    assert answer.status_code == 422, answer.text
    detail = answer.json()["detail"]
    assert detail["error"] == "Invalid webhook payload structure" and detail["validation_errors"] and detail["hint"]
    assert count_rows(Delivery) == 0


def test_malformed_event_needs_no_database_and_stores_nothing(lite_intake: Api) -> None:
    """It is read before any transaction, so that a long one keeps no writer waiting; and its body is not stored."""
    long = json.dumps(event("shop.order", "x" * 100_000)).encode()
    with database().engine.connect().execution_options(millrace_write=True) as writer, writer.begin():
        assert send(lite_intake, long).status_code == 422
        unsigned = lite_intake.anyone.post(PATH, content=long, headers={"x-firecrawl-signature": sign(b"")})
        assert unsigned.status_code == 401
    blobs = (get_settings().data_dir / "blobs").rglob("*")
    assert [path for path in blobs if path.is_file()] == []


def test_unchanged_pages_of_a_crawl_are_read_in_one_query(intake: Api) -> None:
    """Each with the text of the version before it, and as many statements for many as for one."""
    for crawl in ("c-1", "c-2"):
        view = send(
            intake, event("crawl.page", *(page(f"https://a.org/{n}", f"Text {n}.") for n in range(4)), crawl=crawl)
        )
        _work(view)
    query_counts: list[int] = []
    for limit in (1, 100):
        with counting("document_version") as seen:
            result = intake.client.get(f"/api/content/by-session/c-2?limit={limit}").json()
        query_counts.append(len(seen))
    assert [stored_page["markdown"] for stored_page in result] == [f"Text {n}." for n in range(4)]
    assert query_counts[0] == query_counts[1]


@pytest.mark.parametrize("number", [-1, 0, 2**63, 10**30, -(10**30)])
def test_malformed_delivery_ids_are_never_500(intake: Api, number: int) -> None:
    """Never a 500, on either database."""
    address = f"/api/deliveries/in/{number}"
    for answer in (intake.client.get(address), intake.client.post(f"{address}/replay")):
        assert answer.status_code in (404, 422), answer.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["url", "title", "statusCode", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    kind=st.sampled_from(["crawl.page", "crawl.started", "batch_scrape.page", "crawl.failed"]),
    data=st.lists(st.fixed_dictionaries({}, optional={"markdown": JSON, "html": JSON, "metadata": JSON}) | JSON, max_size=3),
    metadata=JSON,
    crawl=st.none() | st.text(max_size=5),
)  # fmt: skip
def test_signed_bodies_are_never_500(lite_intake: Api, kind: str, data: Any, metadata: Any, crawl: Any) -> None:
    body = json.dumps({"type": kind, "id": crawl, "data": data, "metadata": metadata}).encode()
    answer = send(lite_intake, body)
    assert answer.status_code in (200, 202, 422), answer.text


def test_tenants_do_not_share_crawl_sessions(lite_intake: Api) -> None:
    send(lite_intake, event("crawl.started"))
    assert count_rows(CrawlSession) == 1
    with holder(lite_intake, "admin", tenant="acme") as other:
        assert other.get("/api/metrics/crawls").json()["data"] == []
        assert_problem(other.get("/api/metrics/crawls/c-1"), 404, "crawl_not_found")
        assert other.get("/api/deliveries/in").json()["data"] == []
