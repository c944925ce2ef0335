"""An error page never replaces a good one, by whichever way it comes; the failure is counted and tried again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core.db import database
from app.documents.models import DocumentVersion
from app.jobs import testing as jobs
from app.main import create_app
from app.sources.jobs import FetchPage
from app.sources.models import ScrapedPage
from tests.fakes.firecrawl import CRAWL, FakeFirecrawl, document, reply
from tests.fakes.server import Request, Response
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.changes import page
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.support.firecrawl_events import event, send
from tests.support.firecrawl_events import page as event_page
from tests.support.rows import count_rows
from tests.support.sender import SECRET
from tests.unit.api.conftest import Api, served

__all__ = ["site"]
URL = "https://example.org/heron"


@pytest.fixture
def remote_lite(sqlite_url: str, redis_url: str, settings_env: SettingsEnv, remote: FakeFirecrawl) -> Iterator[Api]:
    settings_env(
        database_url=sqlite_url, redis_url=redis_url, webhook_secret=SECRET, retry_delays="1,1",
        crawl_retry_delays="0.01,0.01", firecrawl_url=remote.url,
    )  # fmt: skip
    with served(create_app()) as running:
        yield running


def words(word: str) -> list[str]:
    return [hit["url"] for hit in Desk(database()).find(word, mode="keyword")["results"]]


def tell_page(api: Api, url: str, text: str, **metadata: Any) -> dict[str, Any]:
    answer = send(api, event("crawl.page", event_page(url, text, **metadata)))
    assert answer.status_code == 202
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 500, 503, 520, "503", 404.0])
def test_a_reported_error_page_keeps_the_good_one(remote_lite: Api, remote: FakeFirecrawl, status: Any) -> None:
    """It is counted as a failed page of its crawl; only a page that may come back is fetched again."""
    tell_page(remote_lite, URL, "The heron stands.")
    jobs.drain()
    reply = tell_page(remote_lite, URL, "Something went wrong here.", statusCode=status)
    assert (reply["queued_jobs"], reply["job_ids"]) == (0, [])
    [failed] = reply["failed_documents"]
    assert failed["url"] == URL and str(int(float(status))) in failed["error"]
    jobs.drain()
    assert words("heron") == [URL] and words("wrong") == []
    shown = remote_lite.client.get("/api/metrics/crawls/c-1").json()
    assert (shown["pages_indexed"], shown["pages_failed"]) == (1, 1)
    retried = [job for job in jobs.drain(later=True) if job.kind == FetchPage.kind]
    is_temporary = int(float(status)) in (429, 500, 503, 520)
    assert [job.state for job in retried] == (["succeeded"] if is_temporary else [])
    assert words("docs") == ([URL] if is_temporary else []), "the page that Firecrawl reads then"


def test_a_page_without_status_but_with_an_error_is_no_page(remote_lite: Api) -> None:
    tell_page(remote_lite, URL, "The heron stands.")
    jobs.drain()
    metadata = {"url": URL, "error": "ERR_TUNNEL_CONNECTION_FAILED", "statusCode": 0}
    answer = send(remote_lite, event("crawl.page", {"markdown": "No connection.", "metadata": metadata}))
    assert len(answer.json()["failed_documents"]) == 1
    jobs.drain()
    assert words("heron") == [URL]


def test_an_error_page_of_a_new_address_makes_no_document(remote_lite: Api, remote: FakeFirecrawl) -> None:
    """And many reports of it make one job."""
    remote.wrong = lambda asked: reply(200, {"success": True, "data": document(URL, statusCode=404)})
    for number in range(3):
        tell_page(remote_lite, URL, "Busy.", statusCode=503, scrapeId=str(number))
    assert [job.state for job in jobs.drain(later=True)] == ["failed"]
    assert remote_lite.client.get("/api/documents").json()["data"] == [] and count_rows(DocumentVersion) == 0


@pytest.mark.parametrize("wrong", ["503", "404", "empty"])
def test_a_fetched_error_page_keeps_the_good_one(remote_lite: Api, remote: FakeFirecrawl, wrong: str) -> None:
    """By Firecrawl; a temporary error is tried again and then passes."""
    job = remote_lite.client.post("/api/documents", json={"url": URL}).json()
    jobs.drain()
    data = document(URL, statusCode=200 if wrong == "empty" else int(wrong))
    data = data | ({"markdown": " ", "html": ""} if wrong == "empty" else {})
    remote.wrong = lambda asked: reply(200, {"success": True, "data": data})
    job = remote_lite.client.post("/api/documents", json={"url": URL}).json()
    jobs.drain()
    state = remote_lite.client.get(f"/api/jobs/{job['id']}").json()["state"]
    assert state == ("failed" if wrong == "404" else "retrying")
    assert words("docs") == [URL]
    remote.wrong = lambda asked: None
    jobs.drain(later=True)
    state = remote_lite.client.get(f"/api/jobs/{job['id']}").json()["state"]
    assert state == ("failed" if wrong == "404" else "succeeded")


def test_a_scraped_error_page_keeps_the_good_one(remote_lite: Api, remote: FakeFirecrawl) -> None:
    body = {"url": URL, "maxAge": 3_600_000}
    assert remote_lite.client.post("/api/v2/scrape", json=body).json()["success"]
    remote.wrong = lambda asked: reply(200, {"success": True, "data": document(URL, statusCode="503")})
    forced = remote_lite.client.post("/api/v2/scrape", json={**body, "forceRescrape": True}).json()
    assert (forced["success"], forced["error"]["code"]) == (False, "http_status")
    again = remote_lite.client.post("/api/v2/scrape", json=body).json()
    assert again["data"]["cached"] and "Docs of" in again["data"]["content"] and count_rows(ScrapedPage) == 1


def test_an_error_page_in_a_crawl_of_firecrawl_is_fetched_again(remote_lite: Api, remote: FakeFirecrawl) -> None:
    """Of two pages with a temporary error one comes back; a page that is gone is not asked for again."""
    urls = [f"https://example.org/{number}" for number in range(4)]
    remote.pages = [
        document(urls[0]), document(urls[1], statusCode=503), document(urls[2], statusCode=500),
        document(urls[3], statusCode=404),
    ]  # fmt: skip

    def wrong(asked: Request) -> Response | None:
        if asked.path.endswith("/errors"):
            raced = {"url": urls[0], "error": "SCRAPE_RACED_REDIRECT_ERROR: a duplicate"}
            return reply(
                200,
                {
                    "success": True,
                    "errors": [
                        raced,
                        {
                            "url": "https://a.org/",
                            **raced,
                        },
                    ],
                },
            )
        if asked.path == "/v2/scrape":
            status = 200 if asked.json["url"] == urls[1] else 502
            return reply(200, {"success": True, "data": document(asked.json["url"], statusCode=status)})
        return None

    remote.wrong = wrong
    crawl = remote_lite.client.post("/api/crawls", json={"url": urls[0]}).json()
    jobs.drain()
    shown = remote_lite.client.get(f"/api/metrics/crawls/{crawl['id']}?include_per_page=true").json()
    assert (shown["pages_indexed"], shown["pages_failed"]) == (2, 2), shown
    scraped = [request.json["url"] for request in remote.requests if request.path == "/v2/scrape"]
    assert sorted(set(scraped)) == urls[1:3] and CRAWL


def test_a_recrawled_error_page_keeps_the_good_one(lite: Api, site: FakeSite) -> None:
    """Here, by the built-in fetcher: error, empty page, and a page that is cut."""
    site.pages |= {"/": page("The start stands."), "/heron": page("The heron stands.")}
    site.pages["/"] = site_page(site.pages["/"].body.replace(b"<main>", b'<main><a href="/heron">more</a>'))
    body = {"url": f"{site.url}/", "engine": "builtin", "sitemap": "skip"}
    lite.client.post("/api/crawls", json=body)
    jobs.drain()
    good = words("heron")
    assert good == [f"{site.url}/heron"]
    for response in (
        site_page(b"<p>Something went wrong here.</p>", 404), site_page(b"<p>Something went wrong here.</p>", 503),
        site_page(b""), Response(b"<p>Something went wrong here, and so on.</p>", withheld_bytes=9),
    ):  # fmt: skip
        site.pages["/heron"] = response
        crawl = lite.client.post("/api/crawls", json=body).json()
        jobs.drain()
        shown = lite.client.get(f"/api/metrics/crawls/{crawl['id']}").json()
        assert (shown["pages_indexed"], shown["pages_failed"]) == (1, 1)
        assert words("heron") == good and words("wrong") == []
