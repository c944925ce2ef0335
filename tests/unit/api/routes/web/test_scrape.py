"""POST /api/v2/scrape: pages from the cache, from Firecrawl or by our own fetcher; batches; and what is whose fault."""

# ruff: noqa: E501  bodies and answers read best on a line

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.core import clock
from app.core.db import database
from app.main import create_app
from app.retention.sweep import delete_before
from app.sources.models import ScrapedPage
from tests.fakes.firecrawl import BATCH, EXPIRES, KEY, FakeFirecrawl, document, reply
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.problems import assert_problem
from tests.unit.api.conftest import Api, served

__all__ = ["site"]

PATH = "/api/v2/scrape"
URL = "https://example.org/docs"


@pytest.fixture
def server() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl().running() as playing:
        yield playing


@pytest.fixture
def api(app_env: SettingsEnv, server: FakeFirecrawl) -> Iterator[Api]:
    """With a Firecrawl; on both databases."""
    app_env(firecrawl_url=server.url, firecrawl_api_key=KEY)
    with served(create_app()) as running:
        yield running


@pytest.fixture
def lite(sqlite_url: str, settings_env: SettingsEnv, server: FakeFirecrawl) -> Iterator[Api]:
    """The same on SQLite, and without a Redis."""
    settings_env(database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", firecrawl_url=server.url)
    with served(create_app()) as running:
        yield running


@pytest.fixture
def api_without_firecrawl(sqlite_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    """Without a Firecrawl."""
    settings_env(database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", fetch_private="true")
    with served(create_app()) as running:
        yield running


def ask(api: Api, **body: Any) -> httpx.Response:
    return api.client.post(PATH, json=body)


def got(api: Api, **body: Any) -> dict[str, Any]:
    """The data of a success."""
    answer = ask(api, **{"url": URL} | body)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"success", "command", "data", "error"}
    assert (answer.json()["success"], answer.json()["error"]) == (True, None), answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def _rows() -> list[ScrapedPage]:
    return database().read(lambda session: list(session.scalars(sa.select(ScrapedPage).order_by(ScrapedPage.id))))


def test_second_scrape_comes_from_the_cache(api: Api, server: FakeFirecrawl) -> None:
    first = got(api)
    at = first["timestamp"]
    assert first == {
        "url": URL, "source": "firecrawl", "timestamp": at, "cached": False, "cacheAge": None,
        "content": f"# Docs of {URL}", "contentType": "text/markdown", "screenshot": None, "screenshotFormat": None,
        "savedUris": {"raw": f"scrape://{URL}/raw_{at}", "cleaned": f"scrape://{URL}/cleaned_{at}", "extracted": None},
        "metadata": {"rawLength": len(f"<h1>Docs of {URL}</h1>"), "cleanedLength": len(f"# Docs of {URL}"), "extractedLength": None, "wasTruncated": False},
        "message": None,
    }  # fmt: skip
    assert server.requests[0].json == {"url": URL, "formats": ["markdown", "html"], "timeout": 60000, "maxAge": 0}
    second = got(api)
    assert second["cached"] is True and second["cacheAge"] >= 0
    assert second | {"cached": False, "cacheAge": None} == first
    assert len(server.requests) == 1
    (row,) = _rows()
    assert (row.access_count, row.last_accessed_at is not None) == (1, True)
    assert row.expires_at - row.scraped_at == timedelta(days=2)


def test_max_age_of_the_request_decides(api: Api, server: FakeFirecrawl) -> None:
    """However long its writer wanted to keep it; a forced scrape replaces it, and there stays one row."""
    got(api, maxAge=1000)
    clock.shift(timedelta(hours=3))
    try:
        assert got(api, maxAge=4 * 3600_000)["cacheAge"] >= 3 * 3600_000
        assert got(api, maxAge=2 * 3600_000)["cached"] is False
        assert got(api)["cached"] is True
        assert got(api, maxAge=0)["cached"] is False
        assert got(api, forceRescrape=True)["cached"] is False
        assert got(api, maxAge=10**30)["cached"] is True
    finally:
        clock.shift(timedelta(0))
    assert len(server.requests) == 4
    (row,) = _rows()
    assert row.access_count == 3


def test_options_that_change_the_page_miss_the_cache(api: Api, server: FakeFirecrawl) -> None:
    """The order of lists does not; how long it may take, and how much is shown of it, neither."""
    got(api, formats=["markdown", "html"], includeTags=["a", "b"])
    for same in ({"timeout": 1000}, {"maxChars": 100}, {"startIndex": 7}, {"resultHandling": "returnOnly"}):
        assert got(api, formats=["html", "markdown"], includeTags=["b", "a"], **same)["cached"], same
    others: list[dict[str, Any]] = [
        {}, {"onlyMainContent": False}, {"cleanScrape": False}, {"formats": ["html"]}, {"excludeTags": ["a"]},
        {"headers": {"Cookie": "a=b"}}, {"actions": [{"type": "click", "selector": "a"}]}, {"waitFor": 500},
        {"url": "https://example.org/other"}, {"parsers": [{}]}, {"proxy": "stealth"}, {"blockAds": False},
    ]  # fmt: skip
    for other in others:
        assert not got(api, **other)["cached"], other
        assert got(api, **other)["cached"], other
    assert len(_rows()) == len(others) + 1
    with holder(api, "write", tenant="acme") as stranger:
        assert stranger.post(PATH, json={"url": URL}).json()["data"]["cached"] is False
        assert stranger.post(PATH, json={"url": URL}).json()["data"]["cached"] is True


def test_all_options_reach_firecrawl(lite: Api, server: FakeFirecrawl) -> None:
    wishes: dict[str, Any] = {
        "onlyMainContent": False, "waitFor": 500, "includeTags": ["main"], "excludeTags": ["nav"], "blockAds": False,
        "headers": {"Cookie": "a=b"}, "actions": [{"type": "wait", "milliseconds": 5}], "proxy": "stealth",
    }  # fmt: skip
    got(
        lite,
        **wishes,
        timeout=30000,
        formats=["markdown", "screenshot@fullPage", "markdown"],
        parsers=[{"type": "pdf"}],
    )
    assert server.requests[0].json == {
        "url": URL, **wishes, "timeout": 30000, "maxAge": 0, "parsers": [{"type": "pdf", "maxPages": 100}],
        "formats": ["markdown", {"type": "screenshot", "fullPage": True}],
    }  # fmt: skip


def test_three_result_handlings(lite: Api, server: FakeFirecrawl) -> None:
    only = got(lite, resultHandling="returnOnly")
    assert only["savedUris"] is None and only["content"] and _rows() == []
    saved = got(lite, resultHandling="saveOnly")
    assert (saved["content"], saved["message"], saved["cached"]) == (None, "Content saved to cache", False)
    assert saved["savedUris"]["raw"] and saved["metadata"]["cleanedLength"]
    again = got(lite, resultHandling="saveOnly")
    assert (again["content"], again["cached"]) == (None, True)
    assert got(lite, resultHandling="returnOnly")["cached"] is True


def test_tiers_and_pictures(lite: Api, server: FakeFirecrawl) -> None:
    raw = got(lite, cleanScrape=False)
    assert (raw["content"], raw["contentType"]) == (f"<h1>Docs of {URL}</h1>", "text/html")
    assert raw["savedUris"]["cleaned"] is None and raw["metadata"]["cleanedLength"] is None
    pages: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"markdown": "# M"}, {"content": "# M", "contentType": "text/markdown"}),
        ({"rawHtml": "<p>"}, {"content": "<p>", "contentType": "text/html"}),
        ({"links": ["https://a.org"]}, {"content": '{"links": ["https://a.org"]}', "contentType": "application/json"}),
        ({"screenshot": "data:image/jpeg;base64,AAAA"}, {"screenshot": "AAAA", "screenshotFormat": "image/jpeg", "content": None}),
        ({"screenshot": "AAAA", "markdown": "x"}, {"screenshot": "AAAA", "screenshotFormat": "image/png", "content": "x"}),
        ({"screenshot": "https://s.org/1.png"}, {"screenshot": "https://s.org/1.png", "screenshotFormat": None}),
        ({"markdown": "a\0b\ud800c"}, {"content": "ab?c"}),
    ]  # fmt: skip
    for page, shown in pages:
        server.wrong = lambda request, page=page: reply(200, {"success": True, "data": page})  # type: ignore[misc]
        for cached in (False, True):
            data = got(lite, formats=["markdown", "links", "screenshot"], forceRescrape=not cached)
            assert data["cached"] is cached and data.items() >= shown.items(), page


def test_concurrent_scrapes_of_a_page_store_one_row(api: Api) -> None:
    """One row, and no error."""
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(api, url=URL, forceRescrape=True).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [200] * 8 and len(_rows()) == 1


def test_expired_pages_are_swept(api: Api) -> None:
    got(api, maxAge=1000)
    got(api, url="https://example.org/kept")
    clock.shift(timedelta(minutes=1))
    try:
        gone = database().transaction(delete_before, clock.now(), column=ScrapedPage.expires_at)
    finally:
        clock.shift(timedelta(0))
    assert gone == 1 and [row.url for row in _rows()] == ["https://example.org/kept"]


def _no(code: str | None = None) -> dict[str, Any]:
    return {"success": False, "error": "no \ud800", **({"code": code} if code else {})}


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, {"success": True, "data": document(URL, statusCode=404)}, "http_status"),
        (200, {"success": True, "data": document(URL, statusCode=503)}, "http_status"),
        (200, _no("SCRAPE_DNS_RESOLUTION_ERROR"), "scrape_dns_resolution_error"),
        (403, _no("UNSUPPORTED_SITE"), "unsupported_site"),
        (500, _no("SCRAPE_SSL_ERROR"), "scrape_ssl_error"),
        (200, {"success": True, "data": {"markdown": " ", "metadata": {}}}, "no_content"),
    ],
)
def test_error_of_the_page_is_200(lite: Api, server: FakeFirecrawl, status: int, body: Any, code: str) -> None:
    server.wrong = lambda request: reply(status, body)
    answer = ask(lite, url=URL)
    report = answer.json()
    assert (answer.status_code, report["success"], report["command"], report["data"]) == (200, False, "start", None)
    assert (report["error"]["code"], report["error"]["url"]) == (code, URL) and report["error"]["message"]
    assert _rows() == []


@pytest.mark.parametrize(
    ("status", "body", "ours", "code"),
    [
        (200, _no(), 502, "firecrawl_rejected"),
        (200, b"<html>", 502, "firecrawl_answer"),
        (200, {"success": True, "data": 7}, 502, "firecrawl_answer"),
        (401, _no(), 502, "firecrawl_key"),
        (402, _no(), 503, "firecrawl_credits"),
        (408, _no("SCRAPE_TIMEOUT"), 408, "firecrawl_timeout"),
        (429, _no(), 503, "firecrawl_limit"),
        (500, _no(), 503, "firecrawl_unavailable"),
        (502, b"", 503, "firecrawl_unavailable"),
    ],
)
def test_firecrawl_system_errors_become_problems(
    lite: Api, server: FakeFirecrawl, status: int, body: Any, ours: int, code: str
) -> None:
    server.wrong = lambda request: reply(status, body, {"retry-after": "9"})
    answer = ask(lite, url=URL)
    assert_problem(answer, ours, code)
    assert answer.json()["detail"]
    if status in (408, 429):
        assert answer.headers["retry-after"] == "9"


def test_outage_of_firecrawl_or_the_database(lite: Api, settings_env: SettingsEnv, sqlite_url: str) -> None:
    settings_env(firecrawl_url="http://127.0.0.1:9")
    assert_problem(ask(lite, url=URL), 503, "firecrawl_unavailable")
    settings_env(database_url="sqlite:////nowhere/none.db")
    assert_problem(ask(lite, url=URL), 503, "database_unavailable")


@pytest.mark.parametrize(
    "body",
    [
        {}, {"url": URL, "urls": [URL]}, {"urls": []}, {"url": "example.org"}, {"url": "ftp://a.org"}, {"url": ""},
        {"url": "http://"}, {"url": "http://a:x/"}, {"url": "http://[::1"}, {"urls": [URL, "nonsense"]}, {"url": 7},
        {"url": f"https://a.org/{'x' * 3000}"}, {"command": "status"}, {"command": "cancel", "url": URL},
        {"command": "errors", "jobId": "../x"}, {"command": "stop", "jobId": "x"},
        *({"url": URL, name: value} for name, value in [
            ("timeout", 999), ("timeout", 300_001), ("maxChars", 99), ("maxChars", 1_000_001), ("startIndex", -1),
            ("resultHandling", "keep"), ("maxAge", -1), ("proxy", "fast"), ("waitFor", -1), ("waitFor", 60_001),
            ("actions", [{"type": "dance"}]), ("parsers", [{"type": "doc"}]), ("formats", []), ("formats", ["pdf"]),
            ("headers", {"a": 1}), ("includeTags", "a"), ("blockAds", "perhaps"),
        ]),
    ],
)  # fmt: skip
def test_malformed_request_is_refused_before_firecrawl_is_called(
    lite: Api, server: FakeFirecrawl, body: dict[str, Any]
) -> None:
    answer = ask(lite, **body)
    assert_problem(answer, 422, "invalid_input")
    assert isinstance(answer.json()["detail"], list)
    assert server.requests == []


def test_bounds_and_other_refusals(lite: Api, server: FakeFirecrawl) -> None:
    allowed: dict[str, list[Any]] = {
        "timeout": [1000, 300_000], "maxChars": [100, 1_000_000], "startIndex": [0, 10**9], "maxAge": [0, 10**40],
        "waitFor": [0, 60_000], "proxy": ["basic", "stealth"], "unknown": [7], "max_age": ["nonsense"],
    }  # fmt: skip
    for name, values in allowed.items():
        for value in values:
            got(lite, **{name: value})
    server.requests.clear()
    assert_problem(ask(lite, url=URL, extract="the price"), 400, "extract_deprecated")
    assert ask(lite, url=URL, extract={}).json()["detail"] == "extract is deprecated, use /v2/extract"
    assert_problem(lite.anyone.post(PATH, json={"url": URL}), 401, "unauthenticated")
    assert server.requests == []


def test_a_batch_from_its_start_to_its_end(lite: Api, server: FakeFirecrawl) -> None:
    urls = [URL, "https://example.org/b"]
    begun = got(lite, url=None, urls=urls, formats=["markdown"], onlyMainContent=False)
    message = "Batch scrape started for 2 URLs; ask for its status with this jobId"
    assert begun == {"jobId": BATCH, "status": "scraping", "total": 2, "completed": 0, "creditsUsed": None, "expiresAt": None, "urls": 2, "message": message}  # fmt: skip
    expected_request = {"urls": urls, "formats": ["markdown"], "timeout": 60000, "maxAge": 0, "onlyMainContent": False}
    assert server.requests[0].json == expected_request
    status = got(lite, url=None, command="status", jobId=BATCH)
    message = "Batch scrape progress: 5/5 URLs completed (100%)"
    assert status == {"jobId": BATCH, "status": "completed", "total": 5, "completed": 5, "creditsUsed": 5, "expiresAt": EXPIRES, "urls": None, "message": message}  # fmt: skip
    assert server.requests[-1].query == "limit=1"
    failed = got(lite, url=None, command="errors", jobId=BATCH)
    error = {"url": "https://a.org/x", "error": "timeout", "timestamp": "2026-08-01T10:00:00.000Z"}
    assert failed == {"jobId": BATCH, "errors": [error], "message": "Found 1 errors in batch scrape"}
    cancelled = got(lite, url=None, command="cancel", jobId=BATCH)
    assert (cancelled["status"], cancelled["message"]) == ("cancelled", "Batch scrape cancelled")
    assert_problem(ask(lite, command="status", jobId="none"), 404, "firecrawl_job_not_found")
    server.wrong = lambda request: reply(409, _no())
    assert_problem(ask(lite, command="cancel", jobId=BATCH), 409, "firecrawl_conflict")


HTML = (
    "<html><body><nav>Menu</nav><main><h1>Mühlen</h1><p>"
    + "Das Wasser treibt die Räder. " * 9
    + "</p></main></body></html>"
)


def test_without_firecrawl_pages_are_fetched_here(api_without_firecrawl: Api, site: FakeSite) -> None:
    site.pages["/mill"] = site_page(HTML.encode())
    data = got(api_without_firecrawl, url=f"{site.url}/mill")
    assert (data["source"], data["contentType"], data["cached"]) == ("builtin", "text/markdown", False)
    assert "treibt die Räder" in data["content"] and "<p>" not in data["content"]
    assert data["metadata"]["rawLength"] == len(HTML)
    assert got(api_without_firecrawl, url=f"{site.url}/mill")["cached"] is True
    raw = got(api_without_firecrawl, url=f"{site.url}/mill", cleanScrape=False)
    assert (raw["content"], raw["contentType"]) == (HTML, "text/html")
    site.pages["/plain"] = site_page(b"Only words.", headers={"content-type": "text/plain"})
    plain = got(api_without_firecrawl, url=f"{site.url}/plain")
    assert (plain["content"], plain["contentType"]) == ("Only words.", "text/plain")


def test_error_of_a_page_fetched_here_is_200(
    api_without_firecrawl: Api, site: FakeSite, settings_env: SettingsEnv
) -> None:
    site.pages["/away"] = site_page(status=503)
    site.pages["/picture"] = site_page(b"x", headers={"content-type": "image/png"})
    site.pages["/empty"] = site_page(b"  ")
    for path, code in {
        "/none": "http_status",
        "/away": "unavailable",
        "/picture": "media_type",
        "/empty": "no_content",
    }.items():
        answer = ask(api_without_firecrawl, url=site.url + path)
        assert (answer.status_code, answer.json()["success"], answer.json()["error"]["code"]) == (200, False, code)
    settings_env(fetch_private="false")
    assert ask(api_without_firecrawl, url=f"{site.url}/none").json()["error"]["code"] == "private_address"
    for body in ({"urls": [URL]}, {"command": "status", "jobId": "x"}):
        answer = ask(api_without_firecrawl, **body)
        assert_problem(answer, 503, "firecrawl_not_configured")
        assert "MILLRACE_FIRECRAWL_URL" in answer.json()["detail"]


def test_a_page_that_takes_too_long_is_408(api_without_firecrawl: Api, settings_env: SettingsEnv) -> None:
    with FakeFirecrawl().running() as slow:
        slow.wrong = lambda request: reply(200, b"x", delay_s=30)
        answer = ask(api_without_firecrawl, url=f"{slow.url}/page", timeout=1000)
    assert_problem(answer, 408, "scrape_timeout")
