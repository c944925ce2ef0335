"""A crawl is one job: it finds a site's pages by its rules, each is indexed once, and what stops it loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core import clock
from app.core.db import database
from app.documents.models import DocumentVersion
from app.jobs import ledger
from app.jobs import testing as jobs
from app.jobs.models import JobRow
from app.main import create_app
from app.sources import frontier
from app.sources.crawl_jobs import CheckCrawls
from app.sources.crawl_rules import Rules, as_expression
from app.sources.models import CrawlPage
from tests.api.conftest import Api, served
from tests.api.test_intake import SECRET, event, send
from tests.api.test_intake import page as event_page
from tests.api.test_keys import holder
from tests.api.test_shapes import assert_problem
from tests.app.sources.conftest import Answer, Site, site
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.support.firecrawl import CRAWL, Asked, Firecrawl, Reply, document

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


@pytest.fixture
def lite(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    settings_env(
        database_url=sqlite_url, redis_url=redis_url, fetch_private="true", fetch_host_delay_s=0,
        fetch_javascript="off", webhook_secret=SECRET, retry_delays="1,1", crawl_retry_delays="0.1,0.2",
    )  # fmt: skip
    with served(create_app()) as running:
        yield running


@pytest.fixture
def remote() -> Iterator[Firecrawl]:
    server = Firecrawl()
    with server.playing():
        yield server


def html(word: str, *links: str, head: str = "") -> Answer:
    anchors = "".join(f'<a href="{link}">more</a> ' for link in links)
    text = f"<p>The {word} stands here for long enough to be a text of its own, which somebody may look for.</p>"
    return Answer(
        f"<html><head><title>{word}</title>{head}</head><body><main>{text}{anchors}</main></body></html>".encode()
    )


def put(site: Site) -> None:
    """A start, two pages below, one further on; and what no crawl takes."""
    site.pages |= {
        "/": html(
            "start", "/a", "/b?utm_source=x", "/b", "https://elsewhere.example/x", "/pic.png", "mailto:x@y.z", "#top"
        ),
        "/a": html("heron", "/deep", "/"),
        "/b": html("mill", "/missing", "/secret"),
        "/deep": html("egret", "/deeper"),
        "/deeper": html("carp"),
        "/robots.txt": Answer(b"User-agent: *\nDisallow: /secret\n", headers={"content-type": "text/plain"}),
        "/secret": html("secret"),
    }


def start(api: Api, url: str, **more: Any) -> dict[str, Any]:
    answer = api.client.post("/api/crawls", json={"url": url, "engine": "builtin", "sitemap": "skip", **more})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert job["crawl_id"] == job["id"] and answer.headers["location"] == f"/api/jobs/{job['id']}"
    return job


def metrics(api: Api, crawl: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = api.client.get(f"/api/metrics/crawls/{crawl['crawl_id']}?include_per_page=true").json()
    return found


def rows(crawl: dict[str, Any]) -> dict[str, CrawlPage]:
    query = sa.select(CrawlPage).where(CrawlPage.crawl_id == crawl["id"])
    return {
        row.url.partition("//")[2].partition("/")[2]: row
        for row in database().read(lambda session: session.scalars(query).all())
    }


def words() -> set[str]:
    return {hit["title"] for hit in Desk(database()).find("stands", mode="keyword", limit=50)["results"]}


def test_a_site_is_found_and_indexed(api: Api, site: Site) -> None:
    """Every page once, however it is written; robots are obeyed, a missing one is told, numbers are true."""
    put(site)
    crawl = start(api, f"{site.url}/", tags=["mill"], max_depth=5)
    assert metrics(api, crawl)["status"] == "pending"
    jobs.drain()
    job = api.client.get(f"/api/jobs/{crawl['id']}").json()
    assert job["state"] == "succeeded" and job["progress"]["percent"] == 100, job
    assert job["result"] == {"crawl_id": crawl["id"], "pages": 5, "indexed": 5, "failed": 1, "skipped": 1}
    assert words() == {"start", "heron", "mill", "egret", "carp"}
    told = metrics(api, crawl)
    assert (told["status"], told["success"], told["operation"]) == ("completed", True, "crawl")
    assert (told["total_pages"], told["pages_indexed"], told["pages_failed"]) == (6, 5, 1)
    assert told["crawl_url"] == f"{site.url}/" and told["e2e_duration_ms"] >= told["duration_ms"]
    [failed] = [one for one in told["per_page_metrics"] if one["success"] is False]
    assert failed["url"] == f"{site.url}/missing" and "404" in failed["error_message"]
    assert sorted(path for path, _ in site.asked if path != "/robots.txt") == [
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
    ("given", "found"),
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
def test_rules(lite: Api, site: Site, given: dict[str, Any], found: set[str]) -> None:
    put(site)
    there = f"<urlset><url><loc>{site.url}/deeper</loc></url><url><loc>https://elsewhere.example/</loc></url></urlset>"
    site.pages["/sitemap.xml"] = Answer(there.encode(), headers={"content-type": "application/xml"})
    start(lite, f"{site.url}/", **given)
    jobs.drain()
    assert words() == found


def test_a_page_that_wants_not_to_be_found(lite: Api, site: Site) -> None:
    site.pages["/"] = html("start", "/no", "/rel")
    site.pages["/no"] = html("hidden", head='<meta name="robots" content="noindex">')
    crawl = start(lite, f"{site.url}/")
    jobs.drain()
    assert words() == {"start"} and rows(crawl)["no"].error_code == "noindex"


def test_a_crawl_that_was_killed_goes_on_where_it_stood(api: Api, site: Site) -> None:
    """Its worker dies after some pages: what was taken is not fetched again, nothing is indexed twice."""
    put(site)
    crawl = start(api, f"{site.url}/", max_depth=9)
    desk = Desk(database())
    progress = desk.claim(crawl["id"])
    site.pages["/deep"] = Answer(b"busy", 503)  # so that the first run is in the midst of it
    database().transaction(ledger.free, desk.worker_id, "gone")
    assert progress.claim.fence == 1
    site.pages["/deep"] = html("egret", "/deeper")
    jobs.drain()
    assert words() == {"start", "heron", "mill", "egret", "carp"}
    asked = [path for path, _ in site.asked]
    assert len(asked) == len(set(asked))


def test_half_a_crawl_is_not_lost(lite: Api, site: Site) -> None:
    """A page that stays away fails alone and at last; the rest is there long before."""
    put(site)
    site.pages["/a"] = Answer(b"busy", 503)
    crawl = start(lite, f"{site.url}/", max_depth=1)
    jobs.drain(later=True)
    assert words() == {"start", "mill"}
    assert (rows(crawl)["a"].state, rows(crawl)["a"].tries) == ("failed", 3)
    assert metrics(lite, crawl)["pages_failed"] == 1 and metrics(lite, crawl)["status"] == "completed"


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_cancelled_crawl_keeps_what_it_has(lite: Api, site: Site, when: str) -> None:
    put(site)
    crawl = start(lite, f"{site.url}/")
    desk = Desk(database())
    if when == "running":
        desk.claim(crawl["id"])
    assert lite.client.post(f"/api/jobs/{crawl['id']}/cancel").status_code < 300
    told = metrics(lite, crawl)
    assert told["status"] == ("cancelled" if when == "waiting" else "pending")
    jobs.drain()
    assert site.asked == []


def test_a_crawl_that_was_cancelled_can_be_tried_again(lite: Api, site: Site) -> None:
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
    told = metrics(lite, crawl)
    assert (told["status"], told["pages_indexed"], told["pages_failed"]) == ("completed", 5, 1)


@pytest.mark.parametrize("engine", ["builtin", "firecrawl"])
def test_a_crawl_waits_for_room_in_the_quota(
    lite: Api, site: Site, remote: Firecrawl, settings_env: SettingsEnv, engine: str
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
        told = acme.get(f"/api/metrics/crawls/{crawl['id']}").json()
    assert (told["pages_indexed"], told["pages_failed"]) == (9, 0 if engine == "builtin" else 1)
    assert clock.monotonic() - started < 60


def test_a_sitemap_may_name_more_pages_than_a_page_has_links(lite: Api) -> None:
    crawl = start(lite, "https://example.org/", limit=6000)
    claim = Desk(database()).claim(crawl["id"]).claim
    named = [f"https://example.org/{number}" for number in range(7000)]
    database().transaction(frontier.add, claim, named, 1, 6000)
    assert database().read(frontier.counts, claim.id).found == 6000


def test_a_list_of_crawls_says_of_each_what_it_says_alone(api: Api, site: Site) -> None:
    """And asks no more of the database for many than for one."""
    put(site)
    first = start(api, f"{site.url}/")
    jobs.drain()
    told = send(
        api, event("crawl.page", event_page("https://a.org/1"), {"markdown": "x"}, event_page("https://a.org/2"))
    )
    job_id = told.json()["job_ids"][1]
    assert api.client.post(f"/api/jobs/{job_id}/cancel").status_code < 300
    failed = {"success": False, "type": "crawl.page", "id": "c-1", "error": "403"}
    send(api, {**failed, "data": [event_page("https://a.org/3")]})
    with counting() as one:
        listed = api.client.get("/api/metrics/crawls?limit=1").json()
    assert [crawl["crawl_id"] for crawl in listed["data"]] == ["c-1"] and listed["has_more"]
    assert (listed["data"][0]["total_pages"], listed["data"][0]["pages_failed"]) == (4, 3)
    for number in range(5):
        send(api, event("crawl.page", event_page(f"https://b.org/{number}"), crawl=f"d-{number}"))
    with counting() as many:
        listed = api.client.get("/api/metrics/crawls").json()
    assert len(listed["data"]) == 7 and len(many) == len(one)
    for crawl in listed["data"]:
        assert crawl == api.client.get(f"/api/metrics/crawls/{crawl['crawl_id']}").json()
    own = next(crawl for crawl in listed["data"] if crawl["crawl_id"] == first["id"])
    assert (own["pages_indexed"], own["pages_failed"]) == (5, 1) and own["aggregate_timing"]["qdrant_ms"] > 0


@contextmanager
def counting() -> Iterator[list[str]]:
    """The statements of the block."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if "crawl" in statement:
            seen.append(statement)

    sa.event.listen(database().engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(database().engine, "before_cursor_execute", note)


def test_what_cannot_be_crawled(lite: Api) -> None:
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
    rules = Rules("https://www.example.org/docs/")
    assert rules.takes("https://example.org/x") and rules.takes("http://www.example.org/docs/a?b=c")
    for url in (
        "https://example.com/",
        "https://sub.example.org/",
        "https://example.org:8443/",
        "ftp://example.org/",
        "https://example.org/a.PNG",
        "https://[bad/",
        "https://example.org.evil.example/",
    ):
        assert not rules.takes(url), url
    assert Rules("https://example.org/", subdomains=True).takes("https://a.b.example.org/")
    assert not Rules("https://example.org/", subdomains=True).takes("https://notexample.org/")
    assert as_expression("/docs/*.html") == r"docs/.*\.html"
    slow = Rules("https://example.org/", exclude=["*a" * 40 + "b"])
    assert slow.takes("https://example.org/" + "a" * 1500)  # answered at once


# By Firecrawl


@pytest.fixture
def with_remote(app_env: SettingsEnv, remote: Firecrawl) -> Iterator[Api]:
    app_env(webhook_secret=SECRET, retry_delays="1,1", crawl_retry_delays="0.1,0.2", firecrawl_url=remote.url)
    with served(create_app()) as running:
        yield running


def by_firecrawl(api: Api, **more: Any) -> dict[str, Any]:
    crawl: dict[str, Any] = api.client.post("/api/crawls", json={"url": "https://example.org/", **more}).json()
    return crawl


def test_firecrawl_does_it_where_it_is_set_up(with_remote: Api, remote: Firecrawl) -> None:
    """Started once with our rules, all its parts read, its failures told; its webhooks of this crawl add nothing."""
    crawl = by_firecrawl(with_remote, include=["/docs/*"], limit=7, tags=["t"])
    jobs.drain()
    [asked] = [one for one in remote.asked if one.method == "POST"]
    assert asked.json["includePaths"] == ["docs/.*"] and asked.json["limit"] == 7
    assert asked.header("x-idempotency-key") == [crawl["id"]]
    job = with_remote.client.get(f"/api/jobs/{crawl['id']}").json()
    assert (job["state"], job["result"]["indexed"], job["result"]["failed"]) == ("succeeded", 5, 1)
    before = database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(JobRow)))
    answer = send(with_remote, event("crawl.page", event_page("https://example.org/1"), crawl=CRAWL))
    assert answer.json() == {"status": "acknowledged", "event_type": "crawl.page"}
    assert database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(JobRow))) == before
    assert [one["crawl_id"] for one in with_remote.client.get("/api/metrics/crawls").json()["data"]] == [crawl["id"]]


def test_firecrawl_goes_away_in_the_middle(with_remote: Api, remote: Firecrawl) -> None:
    """The job goes on where it was: no second crawl is started, no page is indexed twice."""

    def wrong(asked: Asked) -> Reply | None:
        return Reply(502, b"") if "skip=2" in asked.query else None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    assert with_remote.client.get(f"/api/jobs/{crawl['id']}").json()["state"] == "retrying"
    remote.wrong = lambda asked: None
    jobs.drain(later=True)
    assert with_remote.client.get(f"/api/jobs/{crawl['id']}").json()["result"]["indexed"] == 5
    assert sum(one.method == "POST" for one in remote.asked) == 1
    versions = database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(DocumentVersion)))
    assert versions == 5


def test_a_start_whose_answer_was_lost_is_found_again(with_remote: Api, remote: Firecrawl) -> None:
    def wrong(asked: Asked) -> Reply | None:
        if asked.method == "POST":
            return Reply(409, {"success": False, "error": "Idempotency key already used"})
        if asked.path.endswith("/active"):
            return Reply(200, {"success": True, "crawls": [{"id": CRAWL, "url": "https://example.org/"}]})
        return None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    assert with_remote.client.get(f"/api/jobs/{crawl['id']}").json()["result"]["indexed"] == 5


def test_firecrawl_says_that_it_failed(with_remote: Api, remote: Firecrawl) -> None:
    """What it had is indexed; the crawl is closed with its reason."""

    def wrong(asked: Asked) -> Reply | None:
        if asked.method == "GET" and asked.path == f"/v2/crawl/{CRAWL}":
            data = [] if "skip=1" in asked.query else [document("https://example.org/1")]
            return Reply(200, {"success": True, "status": "failed", "total": 9, "completed": 1, "data": data})
        return None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    told = with_remote.client.get(f"/api/metrics/crawls/{crawl['id']}").json()
    assert (told["status"], told["pages_indexed"]) == ("failed", 1) and "failed" in told["error_message"]


def test_a_cancelled_crawl_is_stopped_there(with_remote: Api, remote: Firecrawl) -> None:
    remote.wrong = lambda asked: Reply(503, b"") if "skip" in asked.query else None
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    remote.wrong = lambda asked: None
    assert with_remote.client.post(f"/api/jobs/{crawl['id']}/cancel").status_code < 300
    jobs.drain()
    assert [one.path for one in remote.asked if one.method == "DELETE"] == [f"/v2/crawl/{CRAWL}"]
    assert with_remote.client.get(f"/api/metrics/crawls/{crawl['id']}").json()["status"] == "cancelled"


def test_a_crawl_that_was_stopped_there_is_begun_anew(with_remote: Api, remote: Firecrawl) -> None:
    """By another key, which Firecrawl would refuse else; the run that was stopped is not asked again."""
    gone, runs = Reply(200, {"success": True, "status": "cancelled", "total": 9, "completed": 0, "data": []}), []

    def wrong(asked: Asked) -> Reply | None:
        if asked.method == "POST" and asked.path == "/v2/crawl":
            runs.append(asked.header("x-idempotency-key")[0])
            run = CRAWL if len(runs) == 1 else CRAWL[:-1] + "9"
            return Reply(200, {"success": True, "id": run, "url": "https://example.org/"})
        if asked.method == "GET" and asked.path == f"/v2/crawl/{CRAWL}":
            return gone if any(one.method == "DELETE" for one in remote.asked) else Reply(503, b"")
        if asked.path == f"/v2/crawl/{CRAWL[:-1]}9":
            data = [] if "skip=1" in asked.query else [document("https://example.org/1")]
            return Reply(200, {"success": True, "status": "completed", "total": 1, "completed": 1, "data": data})
        return Reply(200, {"success": True, "errors": []}) if asked.path.endswith("/errors") else None

    remote.wrong = wrong
    crawl = by_firecrawl(with_remote)
    jobs.drain()
    with_remote.client.post(f"/api/jobs/{crawl['id']}/cancel")
    jobs.drain()
    assert with_remote.client.post(f"/api/jobs/{crawl['id']}/retry").status_code == 202
    jobs.drain()
    told = with_remote.client.get(f"/api/metrics/crawls/{crawl['id']}").json()
    assert (told["status"], told["pages_indexed"]) == ("completed", 1), told
    assert len(runs) == len(set(runs)) == 2


def test_an_event_before_firecrawl_s_answer_leaves_no_crawl_open(with_remote: Api, remote: Firecrawl) -> None:
    send(with_remote, event("crawl.started", crawl=CRAWL))
    by_firecrawl(with_remote)
    jobs.drain()
    send(with_remote, event("crawl.completed", crawl=CRAWL))
    listed = with_remote.client.get("/api/metrics/crawls").json()["data"]
    assert [one["status"] for one in listed] == ["completed", "completed"]


def test_the_events_of_a_tenant_s_run_are_that_tenant_s(with_remote: Api, remote: Firecrawl) -> None:
    """Begun by way of /v2: its pages, and what is said of it, go to whoever began it."""
    with holder(with_remote, "read", "write", tenant="acme") as acme:
        assert acme.post("/v2/crawl", json={"url": "https://example.org/"}).json()["id"] == CRAWL
        send(with_remote, event("crawl.page", event_page("https://example.org/1"), {"markdown": "x"}, crawl=CRAWL))
        jobs.drain()
        send(with_remote, event("crawl.completed", crawl=CRAWL))
        told = acme.get(f"/api/metrics/crawls/{CRAWL}").json()
        assert (told["status"], told["pages_indexed"], told["pages_failed"]) == ("completed", 1, 1)
        assert acme.get("/api/metrics/crawls").json()["data"] == [told]
        assert [one["url"] for one in acme.get("/api/documents").json()["data"]] == ["https://example.org/1"]
    assert with_remote.client.get("/api/documents").json()["data"] == []
    assert with_remote.client.get("/api/metrics/crawls").json()["data"] == []


def test_single_pages_come_by_firecrawl_too(with_remote: Api, remote: Firecrawl) -> None:
    """And a page that is the same ends as unchanged, though each scrape has an id of its own."""
    remote.wrong = lambda asked: (
        Reply(200, {"success": True, "data": document(asked.json["url"], scrapeId=str(len(remote.asked)))})
        if asked.path == "/v2/scrape"
        else None
    )
    for status in ("indexed", "unchanged"):
        job = with_remote.client.post("/api/documents", json={"url": "https://example.org/one"}).json()
        jobs.drain()
        assert with_remote.client.get(f"/api/jobs/{job['id']}").json()["result"]["status"] == status


# Crawls of others, whose events got lost


def _check(later_h: float = 1) -> dict[str, Any]:
    shift = clock.shifted()
    try:
        clock.shift(shift + timedelta(hours=later_h))
        row = jobs.run_inline(CheckCrawls())
    finally:
        clock.shift(shift)
    assert row.result is not None
    return row.result


def test_a_crawl_that_went_quiet_is_asked_after(with_remote: Api, remote: Firecrawl) -> None:
    """Its end and four of five pages were never told: they are fetched, once, and the crawl is closed."""
    send(with_remote, event("crawl.started", crawl=CRAWL))
    known = remote.pages[0]
    send(with_remote, event("crawl.page", known, crawl=CRAWL))
    assert jobs.run_inline(CheckCrawls()).result == {"checked": 0, "pages": 0, "closed": 0}  # it is young
    assert _check() == {"checked": 1, "pages": 4, "closed": 1}
    jobs.drain(later=True)
    told = with_remote.client.get(f"/api/metrics/crawls/{CRAWL}").json()
    assert (told["status"], told["success"], told["pages_indexed"], told["total_pages"]) == ("completed", True, 5, 5)
    assert _check() == {"checked": 0, "pages": 0, "closed": 0}


def test_pages_of_a_crawl_whose_end_was_told(with_remote: Api, remote: Firecrawl) -> None:
    send(with_remote, event("crawl.completed", crawl=CRAWL))
    assert _check() == {"checked": 1, "pages": 5, "closed": 0}
    assert _check() == {"checked": 0, "pages": 0, "closed": 0}


def test_a_crawl_that_nobody_knows_any_more_fails_after_a_day(with_remote: Api, remote: Firecrawl) -> None:
    send(with_remote, event("crawl.started", crawl="gone"))
    assert _check(1) == {"checked": 1, "pages": 0, "closed": 0}
    assert _check(25) == {"checked": 1, "pages": 0, "closed": 1}
    told = with_remote.client.get("/api/metrics/crawls/gone").json()
    assert told["status"] == "failed" and "does not know it" in told["error_message"]


def test_without_firecrawl_it_fails_after_a_day_too(lite: Api) -> None:
    send(lite, event("crawl.started", crawl="gone"))
    assert _check(1)["closed"] == 0
    assert _check(25)["closed"] == 1
    assert "nothing was heard" in lite.client.get("/api/metrics/crawls/gone").json()["error_message"]
