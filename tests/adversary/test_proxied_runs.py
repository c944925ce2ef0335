"""A7: a tenant reaches its own runs at Firecrawl, and nothing of our network through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.main import create_app
from tests.fakes.firecrawl import BATCH, CRAWL, KEY, FakeFirecrawl, reply
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.firecrawl_events import event, page, send
from tests.support.problems import assert_problem
from tests.support.sender import SECRET
from tests.unit.api.conftest import Api, served

URL = "https://example.org/docs"
SCRAPE = "/api/v2/scrape"


@pytest.fixture
def server() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl().running() as playing:
        yield playing


@pytest.fixture
def api(sqlite_url: str, redis_url: str, settings_env: SettingsEnv, server: FakeFirecrawl) -> Iterator[Api]:
    settings_env(
        database_url=sqlite_url, redis_url=redis_url, firecrawl_url=server.url, firecrawl_api_key=KEY,
        webhook_secret=SECRET, url="http://millrace:52100",
    )  # fmt: skip
    with served(create_app()) as running:
        yield running


@pytest.fixture
def acme(api: Api) -> Iterator[httpx.Client]:
    with holder(api, "read", "write", tenant="acme") as client:
        yield client


@pytest.fixture
def other(api: Api) -> Iterator[httpx.Client]:
    with holder(api, "admin", tenant="other") as client:
        yield client


RUNS = [
    ("/v2/crawl", {"url": URL}, CRAWL, ("GET", "DELETE"), True),
    ("/v2/batch/scrape", {"urls": [URL]}, BATCH, ("GET", "DELETE"), True),
    ("/v2/extract", {"urls": [URL]}, "extract-1", ("GET",), False),
]


@pytest.mark.parametrize(("path", "body", "run", "methods", "has_errors"), RUNS)
def test_the_runs_of_another_tenant_are_not_there(
    api: Api, acme: httpx.Client, other: httpx.Client, server: FakeFirecrawl, path: str, body: dict[str, Any],
    run: str, methods: tuple[str, ...], has_errors: bool,
) -> None:  # fmt: skip
    """Neither before nor after it was started; nor for an operator, whose tenant is another one."""
    targets = [(method, f"{path}/{run}") for method in methods] + [("GET", f"{path}/{run}/errors")] * has_errors
    for method, target in targets:
        assert_problem(acme.request(method, target), 404, "firecrawl_job_not_found")
    assert server.requests == []
    assert acme.post(path, json=body).status_code == 200
    sent = len(server.requests)
    for method, target in targets:
        for client in (other, api.client):
            assert_problem(client.request(method, target), 404, "firecrawl_job_not_found")
    assert len(server.requests) == sent
    if path != "/v2/extract":  # which the fake does not have
        assert [acme.request(method, target).status_code for method, target in targets] == [200] * len(targets)


def test_a_batch_by_the_old_route_is_its_tenants(
    api: Api, acme: httpx.Client, other: httpx.Client, server: FakeFirecrawl
) -> None:
    assert acme.post(SCRAPE, json={"urls": [URL]}).json()["data"]["jobId"] == BATCH
    sent = len(server.requests)
    for command in ("status", "errors", "cancel"):
        for client in (other, api.client):
            assert_problem(
                client.post(SCRAPE, json={"command": command, "jobId": BATCH}), 404, "firecrawl_job_not_found"
            )
        assert_problem(other.get(f"/v2/batch/scrape/{BATCH}"), 404, "firecrawl_job_not_found")
    assert len(server.requests) == sent
    for command in ("status", "errors", "cancel"):
        assert acme.post(SCRAPE, json={"command": command, "jobId": BATCH}).json()["success"], command
    assert acme.get(f"/api/metrics/crawls/{BATCH}").json()["status"] == "completed"
    assert_problem(other.get(f"/api/metrics/crawls/{BATCH}"), 404, "crawl_not_found")


def test_an_event_before_the_answer_gives_the_run_to_nobody_else(api: Api, acme: httpx.Client) -> None:
    """The first event of a run that is not recorded yet is stored for the tenant `default`."""
    send(api, event("crawl.page", page("https://example.org/1"), crawl=CRAWL))
    acme.post("/v2/crawl", json={"url": URL})
    assert acme.get(f"/v2/crawl/{CRAWL}").status_code == 200
    assert_problem(api.client.get(f"/v2/crawl/{CRAWL}"), 404, "firecrawl_job_not_found")


@pytest.mark.parametrize("path", ["/v2/crawl/active", "/v2/crawl/ongoing"])
def test_the_list_of_running_crawls_has_ones_own(
    api: Api, acme: httpx.Client, other: httpx.Client, server: FakeFirecrawl, path: str
) -> None:
    acme.post("/v2/crawl", json={"url": URL})
    crawls = [{"id": CRAWL, "url": URL}, {"id": "of-somebody", "url": "https://secret.example"}, {"url": "x"}, 7]
    server.wrong = lambda asked: reply(200, {"success": True, "crawls": crawls})
    assert acme.get(path).json() == {"success": True, "crawls": crawls[:1]}
    assert other.get(path).json() == {"success": True, "crawls": []}
    assert api.client.get(path).json()["crawls"] == crawls  # an operator sees the account
    odd_bodies: list[Any] = [{"success": True}, [1], {"crawls": {}}]
    for odd in odd_bodies:
        server.wrong = lambda asked, odd=odd: reply(200, odd)  # type: ignore[misc]
        assert_problem(acme.get(path), 502, "firecrawl_answer")


def test_runs_that_nobody_started_here_are_for_operators(api: Api, acme: httpx.Client) -> None:
    assert api.client.get(f"/v2/batch/scrape/{BATCH}").status_code == 200
    assert_problem(acme.get(f"/v2/batch/scrape/{BATCH}"), 404, "firecrawl_job_not_found")


def test_without_keys_only_recorded_runs_are_there(api: Api, settings_env: SettingsEnv) -> None:
    settings_env(firecrawl_proxy_auth="off")
    assert_problem(api.anyone.get(f"/v2/crawl/{CRAWL}"), 404, "firecrawl_job_not_found")
    assert api.anyone.post("/v2/crawl", json={"url": URL}).status_code == 200
    assert api.anyone.get(f"/v2/crawl/{CRAWL}").status_code == 200


# Addresses

NOT_HTTP = (
    "file:///etc/passwd", "FILE:///etc/passwd", " file:///etc/passwd", "fi\tle:///etc/passwd", "file:/etc/passwd",
    "ftp://example.org/", "gopher://example.org", "javascript:alert(1)", "data:text/html,x", "view-source:http://x.org",
    "\x00file:///etc/passwd", "chrome://settings",
)  # fmt: skip
PRIVATE = (
    "http://127.0.0.1/", "http://localhost", "localhost:6379", "127.0.0.1:8000/x", "http://127.1", "http://0x7f000001/",
    "http://2130706433/", "http://017700000001", "http://[::1]:80/", "http://[::ffff:10.0.0.1]/", "http://10.0.0.8/",
    "http://169.254.169.254/latest/meta-data", "http://metadata.google.internal/", "http://redis", "http://postgres:5432",
    "https://user:pass@192.168.0.1/", "http://example.org@127.0.0.1/", "http:\\\\127.0.0.1\\x", "http:127.0.0.1",
    "http:/127.0.0.1", "http:////127.0.0.1", "http://%31%32%37.0.0.1/", "http://１２７.0.0.1/", "http://127。0。0。1/",
    "ht\ntp://127.0.0.1/", "http://127.0.0.1.", "HTTP://LOCALHOST:3002/", "http://db.svc.cluster.local/", "http://nas.lan",
    "http://127.0.0.1\\@example.org/", "http://0/", "http://host.docker.internal:3002/", "//127.0.0.1/x", "",
)  # fmt: skip
PLACES: dict[str, Any] = {
    "/v2/scrape": lambda url: {"url": url},
    "/v2/crawl": lambda url: {"url": url, "limit": 1},
    "/v2/map": lambda url: {"url": url},
    "/v2/batch/scrape": lambda url: {"urls": [URL, url]},
    "/v2/extract": lambda url: {"urls": [url], "prompt": "x"},
    "/v2/crawl/params-preview": lambda url: {"url": url, "prompt": "x"},
    "/v2/search": lambda url: {"query": "x", "scrapeOptions": {"formats": [{"type": "x", "url": url}]}},
}


@pytest.mark.parametrize("path", PLACES)
def test_no_private_address_is_passed_on(acme: httpx.Client, server: FakeFirecrawl, path: str) -> None:
    for url in PRIVATE:
        answer = acme.post(path, json=PLACES[path](url))
        assert (answer.status_code, answer.json()["code"]) == (422, "private_address"), url
    for url in NOT_HTTP:
        answer = acme.post(path, json=PLACES[path](url))
        assert (answer.status_code, answer.json()["code"]) == (422, "url_scheme"), url
    assert server.requests == []


def test_the_old_route_passes_none_on_either(acme: httpx.Client, server: FakeFirecrawl) -> None:
    for url in (*PRIVATE, *NOT_HTTP):
        answer = acme.post(SCRAPE, json={"urls": [URL, url]})
        assert answer.status_code == 422, url
        answer = acme.post(SCRAPE, json={"url": url})
        assert answer.status_code == 422 or answer.json()["error"]["code"] == "private_address", url
    assert server.requests == []


@pytest.mark.parametrize("webhook", ["http://10.0.0.1/hook", {"url": "http://redis:6379/"}, "file:///x", ["http://db"]])
def test_no_webhook_to_a_private_address_is_passed_on(acme: httpx.Client, server: FakeFirecrawl, webhook: Any) -> None:
    assert acme.post("/v2/crawl", json={"url": URL, "webhook": webhook}).status_code == 422
    assert server.requests == []


def test_what_is_public_passes(acme: httpx.Client, server: FakeFirecrawl) -> None:
    """Also without a scheme, our own address as webhook, and texts that only look like addresses."""
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v2/crawl", {"url": "example.org", "webhook": "http://millrace:52100/api/webhook/firecrawl"}),
        ("/v2/crawl", {"url": "example.org:8443/x", "webhook": {"url": "https://hooks.example.org/x"}}),
        ("/v2/scrape", {"url": "https://93.184.216.34/", "headers": {"url": "http://10.0.0.1"}}),
        ("/v2/scrape", {"url": "http://[2606:2800:220:1:248:1893:25c8:1946]/"}),
        ("/v2/extract", {"urls": ["https://example.org/*"], "schema": {"url": "string"}, "prompt": "file:///x"}),
        ("/v2/search", {"query": "file:///etc/passwd localhost"}),
        ("/v2/map", {"url": "https://bücher.example/ü?a=http://127.0.0.1/"}),
    ]
    for path, body in bodies:
        assert acme.post(path, json=body).status_code == 200, body
        assert server.requests[-1].json == body


def test_a_body_that_two_parsers_read_differently_is_refused(acme: httpx.Client, server: FakeFirecrawl) -> None:
    body = json.dumps({"url": "file:///etc/passwd"})
    deep = '{"url": "file:///etc/passwd", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    for content, headers in (
        (body.encode("utf-16"), {"content-type": "application/json; charset=utf-16"}),
        (b'{"url": "file:+AC8ALwAv-etc"}', {"content-type": "application/json; charset=utf-7"}),
        (b"url=file%3A%2F%2F%2Fetc%2Fpasswd", {"content-type": "application/x-www-form-urlencoded"}),
        (b"\xef\xbb\xbf" + body.encode(), {"content-type": "application/json"}),
        (body.encode(), {"content-type": "application/json", "content-encoding": "deflate"}),
        (deep.encode(), {"content-type": "application/json"}),
        (body.encode() + b"\x00", {"content-type": "application/json"}),
    ):
        answer = acme.post("/v2/scrape", content=content, headers=headers)
        assert answer.status_code in (415, 422), (content[:40], headers)
    twice = [("content-type", "application/json"), ("content-type", "application/json; charset=utf-7")]
    assert acme.post("/v2/scrape", content=body.encode(), headers=httpx.Headers(twice)).status_code == 415
    assert server.requests == []
