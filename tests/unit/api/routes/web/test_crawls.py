"""A crawl is one job: it finds a site's pages by its rules, each is indexed once, and what stops it loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core import clock
from app.core.db import database
from app.jobs import testing as jobs
from app.jobs.ledger import ends
from app.main import create_app
from app.sources.crawls import frontier
from app.sources.crawls.rules import CrawlRules, as_expression
from tests.fakes.firecrawl import FakeFirecrawl, document
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.api_keys import holder
from tests.support.crawls import html, metrics, rows, start, words
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.support.firecrawl_events import event, send
from tests.support.firecrawl_events import page as event_page
from tests.support.problems import assert_problem
from tests.support.sender import SECRET
from tests.support.statements import counting
from tests.unit.api.conftest import Api, served

__all__ = ["site"]


@pytest.fixture
def api(app_env: SettingsEnv) -> Iterator[Api]:
    app_env(
        fetch_private="true",
        fetch_host_delay_s=0,
        fetch_javascript="off",
        webhook_secret=SECRET,
        retry_delays="1,1",
        crawl_retry_delays="0.1,0.2",
    )
    with served(create_app()) as running:
        yield running


def put(site: FakeSite) -> None:
    """A start, two pages below, one further on; and what no crawl takes."""
    site.pages |= {
        "/": html(
            "start", "/a", "/b?utm_source=x", "/b", "https://elsewhere.example/x", "/pic.png", "mailto:x@y.z", "#top"
        ),
        "/a": html("heron", "/deep", "/"),
        "/b": html("mill", "/missing", "/secret"),
        "/deep": html("egret", "/deeper"),
        "/deeper": html("carp"),
        "/robots.txt": site_page(b"User-agent: *\nDisallow: /secret\n", headers={"content-type": "text/plain"}),
        "/secret": html("secret"),
    }


def test_a_site_is_found_and_indexed(api: Api, site: FakeSite) -> None:
    """Every page once, however it is written; robots are obeyed, a missing one is told, numbers are true."""
    put(site)
    crawl = start(api, f"{site.url}/", tags=["mill"], max_depth=5)
    assert metrics(api, crawl)["status"] == "pending"
    jobs.drain()
    job = api.client.get(f"/api/jobs/{crawl['id']}").json()
    assert job["state"] == "succeeded" and job["progress"]["percent"] == 100, job
    assert job["result"] == {"crawl_id": crawl["id"], "pages": 5, "indexed": 5, "failed": 1, "skipped": 1}
    assert words() == {"start", "heron", "mill", "egret", "carp"}
    report = metrics(api, crawl)
    assert (report["status"], report["success"], report["operation"]) == ("completed", True, "crawl")
    assert (report["total_pages"], report["pages_indexed"], report["pages_failed"]) == (6, 5, 1)
    assert report["crawl_url"] == f"{site.url}/" and report["e2e_duration_ms"] >= report["duration_ms"]
    [failed] = [page for page in report["per_page_metrics"] if page["success"] is False]
    assert failed["url"] == f"{site.url}/missing" and "404" in failed["error_message"]
    assert sorted(path for path, _ in site.visits if path != "/robots.txt") == [
        "/",
        "/a",
        "/b",
        "/deep",
        "/deeper",
        "/missing",
    ]
    assert rows(crawl)["secret"].state == "skipped"
    hit = Desk(database()).find("egret", mode="keyword")["results"][0]
    assert hit["metadata"]["tags"] == ["mill"] and hit["metadata"]["source_type"] == "crawl"
    assert len(api.client.get(f"/api/content/by-session/{crawl['id']}").json()) == 5


@pytest.mark.parametrize(
    ("options", "expected_words"),
    [
        ({"max_depth": 0}, {"start"}),
        ({"max_depth": 1}, {"start", "heron", "mill"}),
        ({"limit": 2, "max_depth": 9}, {"start", "heron"}),
        ({"include": ["/a", "/deep*"], "max_depth": 9}, {"start", "heron", "egret", "carp"}),
        ({"exclude": ["/deep*"], "max_depth": 9}, {"start", "heron", "mill"}),
        ({"sitemap": "only"}, {"start", "carp"}),
        ({"sitemap": "include", "max_depth": 0}, {"start", "carp"}),
    ],
)
def test_rules(lite: Api, site: FakeSite, options: dict[str, Any], expected_words: set[str]) -> None:
    put(site)
    there = f"<urlset><url><loc>{site.url}/deeper</loc></url><url><loc>https://elsewhere.example/</loc></url></urlset>"
    site.pages["/sitemap.xml"] = site_page(there.encode(), headers={"content-type": "application/xml"})
    start(lite, f"{site.url}/", **options)
    jobs.drain()
    assert words() == expected_words


def test_noindex_page_is_not_indexed(lite: Api, site: FakeSite) -> None:
    site.pages["/"] = html("start", "/no", "/rel")
    site.pages["/no"] = html("hidden", head='<meta name="robots" content="noindex">')
    crawl = start(lite, f"{site.url}/")
    jobs.drain()
    assert words() == {"start"} and rows(crawl)["no"].error_code == "noindex"


def test_killed_crawl_resumes(api: Api, site: FakeSite) -> None:
    """The worker dies after some pages: stored pages are not fetched again, and none is indexed twice."""
    put(site)
    crawl = start(api, f"{site.url}/", max_depth=9)
    desk = Desk(database())
    progress = desk.claim(crawl["id"])
    site.pages["/deep"] = site_page(b"busy", 503)  # so that the first run is in the midst of it
    database().transaction(ends.free, desk.worker_id, "gone")
    assert progress.claim.fence == 1
    site.pages["/deep"] = html("egret", "/deeper")
    jobs.drain()
    assert words() == {"start", "heron", "mill", "egret", "carp"}
    paths = [path for path, _ in site.visits]
    assert len(paths) == len(set(paths))


def test_failing_page_of_a_crawl_fails_alone(lite: Api, site: FakeSite) -> None:
    """A page that stays away fails alone and at last; the rest is there long before."""
    put(site)
    site.pages["/a"] = site_page(b"busy", 503)
    crawl = start(lite, f"{site.url}/", max_depth=1)
    jobs.drain(later=True)
    assert words() == {"start", "mill"}
    assert (rows(crawl)["a"].state, rows(crawl)["a"].tries) == ("failed", 3)
    assert metrics(lite, crawl)["pages_failed"] == 1 and metrics(lite, crawl)["status"] == "completed"


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_cancelled_crawl_keeps_its_pages(lite: Api, site: FakeSite, when: str) -> None:
    put(site)
    crawl = start(lite, f"{site.url}/")
    desk = Desk(database())
    if when == "running":
        desk.claim(crawl["id"])
    assert lite.client.post(f"/api/jobs/{crawl['id']}/cancel").status_code < 300
    report = metrics(lite, crawl)
    assert report["status"] == ("cancelled" if when == "waiting" else "pending")
    jobs.drain()
    assert site.visits == []


def test_cancelled_crawl_can_be_retried(lite: Api, site: FakeSite) -> None:
    """Its pages had come and waited to be indexed: now they are."""
    put(site)
    crawl = start(lite, f"{site.url}/")
    with pytest.raises(RuntimeError):
        jobs.drain(most=1)
    assert lite.client.post(f"/api/jobs/{crawl['id']}/cancel").status_code < 300
    jobs.drain()
    assert words() == set() and metrics(lite, crawl)["pages_failed"] > 4
    assert lite.client.post(f"/api/jobs/{crawl['id']}/retry").status_code == 202
    jobs.drain()
    assert words() == {"start", "heron", "mill", "egret", "carp"}
    report = metrics(lite, crawl)
    assert (report["status"], report["pages_indexed"], report["pages_failed"]) == ("completed", 5, 1)


@pytest.mark.parametrize("engine", ["builtin", "firecrawl"])
def test_a_crawl_waits_for_room_in_the_quota(
    lite: Api, site: FakeSite, remote: FakeFirecrawl, settings_env: SettingsEnv, engine: str
) -> None:
    """More often than a job has tries: no page is lost for it, and none is read slower."""
    settings_env(firecrawl_url=remote.url)
    remote.pages = [document(f"https://example.org/{number}") for number in range(9)]
    site.pages = {"/": html("start", *(f"/{number}" for number in range(8)))}
    site.pages |= {f"/{number}": html(f"page{number}") for number in range(8)}
    with holder(lite, "read", "write", tenant="acme") as acme:
        lite.client.patch("/api/tenants/acme", json={"max_open_jobs": 2})
        started = clock.monotonic()
        crawl = acme.post("/api/crawls", json={"url": f"{site.url}/", "engine": engine, "sitemap": "skip"}).json()
        jobs.drain(later=True)
        assert acme.get(f"/api/jobs/{crawl['id']}").json()["state"] == "succeeded"
        report = acme.get(f"/api/metrics/crawls/{crawl['id']}").json()
    assert (report["pages_indexed"], report["pages_failed"]) == (9, 0 if engine == "builtin" else 1)
    assert clock.monotonic() - started < 60


def test_a_sitemap_may_name_more_pages_than_a_page_has_links(lite: Api) -> None:
    crawl = start(lite, "https://example.org/", limit=6000)
    claim = Desk(database()).claim(crawl["id"]).claim
    named = [f"https://example.org/{number}" for number in range(7000)]
    database().transaction(frontier.add, claim, named, 1, 6000)
    assert database().read(frontier.count, claim.id).found == 6000


def test_crawl_in_a_list_equals_the_single_view(api: Api, site: FakeSite) -> None:
    """And asks no more of the database for many than for one."""
    put(site)
    first = start(api, f"{site.url}/")
    jobs.drain()
    response = send(
        api, event("crawl.page", event_page("https://a.org/1"), {"markdown": "x"}, event_page("https://a.org/2"))
    )
    job_id = response.json()["job_ids"][1]
    assert api.client.post(f"/api/jobs/{job_id}/cancel").status_code < 300
    failed = {"success": False, "type": "crawl.page", "id": "c-1", "error": "403"}
    send(api, {**failed, "data": [event_page("https://a.org/3")]})
    with counting("crawl") as single_queries:
        listed = api.client.get("/api/metrics/crawls?limit=1").json()
    assert [crawl["crawl_id"] for crawl in listed["data"]] == ["c-1"] and listed["has_more"]
    assert (listed["data"][0]["total_pages"], listed["data"][0]["pages_failed"]) == (4, 3)
    for number in range(5):
        send(api, event("crawl.page", event_page(f"https://b.org/{number}"), crawl=f"d-{number}"))
    with counting("crawl") as many:
        listed = api.client.get("/api/metrics/crawls").json()
    assert len(listed["data"]) == 7 and len(many) == len(single_queries)
    for crawl in listed["data"]:
        assert crawl == api.client.get(f"/api/metrics/crawls/{crawl['crawl_id']}").json()
    own = next(crawl for crawl in listed["data"] if crawl["crawl_id"] == first["id"])
    assert (own["pages_indexed"], own["pages_failed"]) == (5, 1) and own["aggregate_timing"]["qdrant_ms"] > 0


def test_invalid_crawl_requests_are_refused(lite: Api) -> None:
    for body in (
        {"url": "ftp://a.org"},
        {"url": "https://"},
        {"url": "x"},
        {"url": "https://a.org", "limit": 0},
        {"url": "https://a.org", "max_depth": 99},
        {"url": "https://a.org", "include": [""]},
        {"url": "https://a.org", "more": 1},
        {},
    ):
        assert lite.client.post("/api/crawls", json=body).status_code == 422, body
    assert_problem(
        lite.client.post("/api/crawls", json={"url": "https://a.org", "engine": "firecrawl"}), 409, "not_set_up"
    )
    assert_problem(
        lite.client.post("/api/crawls", json={"url": "https://a.org", "collection": "none"}),
        404,
        "collection_not_found",
    )


def test_rules_of_addresses() -> None:
    rules = CrawlRules("https://www.example.org/docs/")
    assert rules.allows("https://example.org/x") and rules.allows("http://www.example.org/docs/a?b=c")
    for url in (
        "https://example.com/",
        "https://sub.example.org/",
        "https://example.org:8443/",
        "ftp://example.org/",
        "https://example.org/a.PNG",
        "https://[bad/",
        "https://example.org.evil.example/",
    ):
        assert not rules.allows(url), url
    assert rules.allows("https://example.org:443/x") and rules.allows("http://EXAMPLE.org.:80/x")
    assert CrawlRules("https://bücher.example/").allows("https://www.xn--bcher-kva.example/ä")
    closed = CrawlRules("https://example.org/", exclude=["/geheim/ä*"])
    assert not closed.allows("https://example.org/%67eheim/%C3%A4pfel") and closed.allows("https://example.org/ä")
    moved = CrawlRules("https://old.example/").moved_to("https://new.example/home")
    assert moved.allows("https://old.example/a") and not moved.contains("https://old.example/a")
    assert moved.allows("https://new.example/a") and moved.contains("https://www.new.example/a")
    assert CrawlRules("https://example.org/", subdomains=True).allows("https://a.b.example.org/")
    assert not CrawlRules("https://example.org/", subdomains=True).allows("https://notexample.org/")
    assert as_expression("/docs/*.html") == r"docs/.*\.html"
    slow = CrawlRules("https://example.org/", exclude=["*a" * 40 + "b"])
    assert slow.allows("https://example.org/" + "a" * 1500)  # answered at once
