"""Documents and search over HTTP, as new callers and the old service's clients use them."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from app.core.db import database
from app.core.errors import InvalidInput
from app.jobs.ledger.views import JobFilter, list_jobs
from tests.support.desk import TENANT, Desk
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api

MARKDOWN = "# Millraces\n\nA millrace carries water to the wheel. The sluice stops it.\n"
LONG_FORM = {
    "url": "https://example.com/mill",
    "resolvedUrl": "https://example.com/mill?utm_source=x",
    "markdown": MARKDOWN,
    "html": "<p>kept, but not searched where there is Markdown</p>",
    "statusCode": 200,
    "title": "Mills",
    "description": "About mills",
    "gcsPath": None,
    "screenshotUrl": "https://example.com/shot.png",
    "language": "en",
    "country": "GB",
    "isMobile": True,
}


@pytest.fixture
def desk(api: Api) -> Desk:
    return Desk(database())


def test_posted_page_is_searchable(api: Api, desk: Desk) -> None:
    """The old service's index body and search answer, key for key."""
    answer = api.client.post("/api/index", json=LONG_FORM)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/jobs/{job['job_id']}"
    assert job["message"] == "Document queued for indexing: https://example.com/mill"
    assert (job["status"], job["state"], job["kind"]) == ("queued", "queued", "documents.ingest")
    desk.work(job["job_id"])
    body = {"query": "sluice", "mode": "bm25", "filters": {"isMobile": True, "domain": "example.com", "country": "GB"}}
    result = api.client.post("/api/search", json=body).json()
    assert (result["total"], result["query"], result["mode"]) == (1, "sluice", "bm25")
    hit = result["results"][0]
    assert hit["title"] == "Mills" and hit["description"] == "About mills" and "sluice" in hit["text"]
    assert hit["metadata"]["screenshot_url"] == "https://example.com/shot.png"
    assert hit["metadata"]["isMobile"] is hit["metadata"]["is_mobile"] is True
    stats = api.client.get("/api/stats").json()
    assert (stats["total_documents"], stats["total_chunks"], stats["qdrant_points"]) == (1, 1, 1)
    assert (
        api.client.post("/api/search", json={"query": "sluice", "filters": {"is_mobile": False}}).json()["total"] == 0
    )


def test_short_form_requires_url_and_body(api: Api) -> None:
    """url and a body suffice; without, both bodies are named in the old service's list."""
    assert api.client.post("/api/index", json={"url": "https://a.org", "markdown": "text"}).status_code == 202
    assert api.client.post("/api/index", json={"url": "https://a.org", "html": "<p>text</p>"}).status_code == 202
    for blank in ({"url": "https://a.org"}, {"url": "https://a.org", "markdown": " ", "html": ""}):
        refused = api.client.post("/api/index", json=blank)
        assert refused.status_code == 422
        assert [fault["loc"][-1] for fault in refused.json()["detail"]] == ["markdown", "html"]
    missing = api.client.post("/api/index", json={"markdown": "text"})
    assert missing.status_code == 422 and missing.json()["detail"][0]["loc"] == ["body", "url"]


@pytest.mark.parametrize(
    "body",
    [
        {"markdown": "a", "text": "b"},
        {},
        {"title": "only"},
        {"url": "ftp://example.com/x"},
        {"url": "javascript:alert(1)"},
        {"url": "http://[::1"},
        {"url": "http://example.com:99999/"},
        {"url": ""},
        {"url": "https://example.com/" + "a" * 3000, "text": "x"},
        {"text": " \n "},
        {"text": "x", "tags": "no list"},
        {"text": "x", "tags": [["nested"]]},
        {"text": "x", "metadata": []},
        {"text": "x", "metadata": {"a": "b" * 70_000}},
        {"text": 7},
        [],
        "text",
    ],
)
def test_bad_documents_are_422(lite_api: Api, body: Any) -> None:
    answer = lite_api.client.post("/api/documents", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_malformed_bodies_are_never_500(lite_api: Api) -> None:
    """Bodies that JSON can express and databases cannot store."""
    deep = '{"text": "x", "metadata": ' + '{"a":' * 500 + "1" + "}" * 501
    for raw in (
        b'{"text": "a\\u0000b \\ud800 c", "title": "\\udfff", "metadata": {"\\u0000": [NaN, Infinity, "\\ud83d"]}}',
        b'{"text": "x", "external_id": "\\u0000"}',
        b'{"text": "x", "url": "https://example.com/\\u0000\\ud800"}',
        deep.encode(),
        b'{"text": "x", "metadata": ' + b"[" * 100_000,
        b"\xff\xfe",
        b"{",
        b"",
    ):
        answer = lite_api.client.post("/api/documents", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code in (202, 400, 422), answer.text
    for search in (
        {"query": "\ud800"},
        {"query": "x", "filters": {"domain": "\x00"}},
        {"query": "x", "cursor": "\x00"},
    ):
        raw = json.dumps(search).encode()
        answer = lite_api.client.post("/api/search", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 422), answer.text
    assert lite_api.client.get("/api/documents?domain=%00%ff").status_code in (200, 400)
    for path in ("0", "-1", "x", "9" * 40, "1.5", "٣"):
        assert lite_api.client.get(f"/api/documents/{path}").status_code == 404
        assert lite_api.client.delete(f"/api/documents/{path}").status_code == 404


def test_lists_show_and_delete(api: Api, desk: Desk) -> None:
    """Newest first, page by page; one with its versions and last job; gone when deleted."""
    for n in range(5):
        job = api.client.post(
            "/api/documents", json={"text": f"water {n}", "external_id": f"k{n}", "tags": ["t"]}
        ).json()
        if n < 4:
            desk.work(job["id"])
    first = api.client.get("/api/documents?limit=2").json()
    assert [row["external_id"] for row in first["data"]] == ["k4", "k3"] and first["has_more"]
    second = api.client.get("/api/documents", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [row["external_id"] for row in second["data"]] == ["k2", "k1", "k0"] and not second["has_more"]
    assert api.client.get("/api/documents?indexed=false").json()["data"][0]["external_id"] == "k4"
    assert len(api.client.get("/api/documents?external_id=k1").json()["data"]) == 1
    document_id = second["data"][0]["id"]
    shown = api.client.get(f"/api/documents/{document_id}").json()
    assert (shown["text"], shown["chunks"], shown["tags"]) == ("water 2", 1, ["t"])
    assert shown["last_job"]["state"] == "succeeded"
    assert [version["state"] for version in shown["versions"]] == ["current"]
    assert shown["versions"][0]["id"] == shown["content_id"]
    assert api.client.delete(f"/api/documents/{document_id}").status_code == 204
    assert api.client.get(f"/api/documents/{document_id}").status_code == 404
    result = api.client.post("/api/search", json={"query": "water"}).json()
    assert document_id not in [hit["document_id"] for hit in result["results"]] and result["total"] == 3


def test_test_index_waits_and_reports_the_steps(api: Api, desk: Desk) -> None:
    """200 with the old service's report, also of a failure."""

    def serve() -> None:
        job_filter = JobFilter(states=["queued"])
        wait_until(lambda: desk.db.read(list_jobs, TENANT, job_filter, 1), what="the job")
        try:
            desk.work(desk.db.read(list_jobs, TENANT, job_filter, 1)[0].id)
        except InvalidInput:
            return

    for html, status in (("<p>" + "A millrace carries water. " * 5 + "</p>", "success"), ("<br>", "failed")):
        worker = threading.Thread(target=serve)
        worker.start()
        report = api.client.post("/api/test-index", json={"url": f"https://example.com/{status}", "html": html}).json()
        worker.join()
        assert report["status"] == status, report
        assert [step["step"] for step in report["steps"]] == ["parse_document", "index_document"]
        assert report["total_duration_ms"] > 0
    assert report["error_type"] == "InvalidInput" and "no text" in report["error"]


def test_wait_returns_when_the_job_has_ended(api: Api, desk: Desk) -> None:
    """`?wait=` holds the 202 until the job has ended, then it is 200."""
    answer = api.client.post("/api/documents?wait=0.2", json={"text": "water"})
    assert answer.status_code == 202 and answer.json()["state"] == "queued"
    assert (
        api.client.post("/api/documents", json={"url": "https://example.com/page"}).json()["kind"]
        == "sources.fetch_page"
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": None},
        {"query": "x", "limit": 0},
        {"query": "x", "limit": 101},
        {"query": "x", "offset": -1},
        {"query": "x", "mode": "magic"},
        {"query": "x" * 5000},
        {"query": "x", "filters": {"since": "0001-01-01T00:00:00+14:00"}},
        {"query": "x", "cursor": "abc"},
        {"query": "x", "filters": {"document_ids": ["x"]}},
    ],
)
def test_bad_searches_are_422(lite_api: Api, body: dict[str, Any]) -> None:
    assert lite_api.client.post("/api/search", json=body).status_code == 422


def test_every_route_requires_the_secret(lite_api: Api) -> None:
    for method, path in (
        ("POST", "/api/search"),
        ("POST", "/api/index"),
        ("POST", "/api/test-index"),
        ("POST", "/api/documents"),
        ("GET", "/api/documents"),
        ("GET", "/api/documents/1"),
        ("DELETE", "/api/documents/1"),
        ("GET", "/api/stats"),
    ):
        assert lite_api.anyone.request(method, path).status_code == 401
