"""Firecrawl's responses by its contract, and faulty ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.clients import firecrawl as client
from app.clients.firecrawl_errors import FirecrawlTimeout, InvalidResponse, PageFault, PageRejected, PageUnavailable
from app.core.errors import ConfigError, Conflict, NotFound, Rejected, Unavailable
from app.core.settings import get_settings
from tests.fakes.firecrawl import BATCH, CRAWL, KEY, FakeFirecrawl, reply
from tests.support.databases import SettingsEnv

URL = "https://example.org/docs"


@pytest.fixture
def server(settings_env: SettingsEnv) -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl().running() as playing:
        settings_env(firecrawl_url=playing.url, firecrawl_api_key=KEY, firecrawl_timeout_s=5)
        yield playing


def _with(use: Callable[[client.Firecrawl], Any]) -> Any:
    async def run() -> Any:
        try:
            return await use(client.firecrawl())
        finally:
            await client.close_firecrawl()

    return asyncio.run(run())


def _scrape(**options: Any) -> dict[str, Any]:
    data: dict[str, Any] = _with(lambda firecrawl: firecrawl.scrape({"url": URL, **options}))
    return data


@pytest.mark.parametrize("end", ["", "/", "/v2", "/v2/", "/v1"])
def test_a_page_however_the_address_is_written(server: FakeFirecrawl, settings_env: SettingsEnv, end: str) -> None:
    settings_env(firecrawl_url=server.url + end)
    assert _scrape()["markdown"] == f"# Docs of {URL}"
    (request,) = server.requests
    assert (request.path, request.json) == ("/v2/scrape", {"url": URL})
    assert request.header("authorization") == [f"Bearer {KEY}"]


def test_without_a_key_no_header_is_sent(server: FakeFirecrawl, settings_env: SettingsEnv) -> None:
    settings_env(firecrawl_api_key="")
    _scrape()
    assert server.requests[0].header("authorization") == []


def test_key_may_be_in_a_file(server: FakeFirecrawl, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("fc-of-a-file\n")
    monkeypatch.delenv("MILLRACE_FIRECRAWL_API_KEY")
    monkeypatch.setenv("MILLRACE_FIRECRAWL_API_KEY_FILE", str(tmp_path / "key"))
    get_settings.cache_clear()
    _scrape()
    assert server.requests[0].header("authorization") == ["Bearer fc-of-a-file"]


def test_missing_url_is_reported(settings_env: SettingsEnv) -> None:
    with pytest.raises(Unavailable, match="MILLRACE_FIRECRAWL_URL"):
        _scrape()


def test_a_crawl_is_followed_to_its_end(server: FakeFirecrawl) -> None:
    """`next` has another host and scheme; only its path and query are used."""

    async def crawl(firecrawl: client.Firecrawl) -> list[client.CrawlStatus]:
        crawl_id = await firecrawl.start_crawl({"url": URL}, idempotency_key="k-1")
        assert crawl_id == CRAWL
        return [part async for part in firecrawl.crawl_pages(crawl_id)]

    parts = _with(crawl)
    assert [len(part.data) for part in parts] == [2, 2, 1]
    assert (parts[0].status, parts[0].total, parts[-1].next) == ("completed", 5, None)
    assert [request.query for request in server.requests] == ["", "", "skip=2", "skip=4"]
    assert server.requests[0].header("x-idempotency-key") == ["k-1"]


def test_circular_next_link_ends(server: FakeFirecrawl) -> None:
    body = {"status": "scraping", "data": [{}], "next": f"https://x/v2/crawl/{CRAWL}?skip=1"}
    server.wrong = lambda request: reply(200, body)

    async def crawl(firecrawl: client.Firecrawl) -> int:
        return len([part async for part in firecrawl.crawl_pages(CRAWL)])

    assert _with(crawl) == 2


def test_batches_maps_and_errors(server: FakeFirecrawl) -> None:
    async def all_of_it(firecrawl: client.Firecrawl) -> list[Any]:
        await firecrawl.cancel_batch(BATCH)
        await firecrawl.cancel_crawl(CRAWL)
        return [
            await firecrawl.start_batch({"urls": [URL]}),
            (await firecrawl.batch_status(BATCH, limit=1)).completed,
            [error["error"] for error in await firecrawl.batch_errors(BATCH)],
            [error["url"] for error in await firecrawl.crawl_errors(CRAWL)],
            await firecrawl.map({"url": URL}),
        ]

    links = [{"url": "https://example.org/a", "title": "A"}]
    assert _with(all_of_it) == [(BATCH, []), 5, ["timeout"], ["https://a.org/x"], links]


@pytest.mark.parametrize("job_id", ["..", "a/b", "a?b", "", "x" * 300, "ü"])
def test_id_cannot_change_the_path(server: FakeFirecrawl, job_id: str) -> None:
    with pytest.raises(NotFound):
        _with(lambda firecrawl: firecrawl.cancel_crawl(job_id))
    assert server.requests == []


def _no(code: str | None = None, error: str = "no", **more: Any) -> dict[str, Any]:
    return {"success": False, "error": error, **({"code": code} if code else {}), **more}


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, _no("SCRAPE_DNS_RESOLUTION_ERROR"), PageRejected, "scrape_dns_resolution_error"),
        (200, _no(), Rejected, "firecrawl_rejected"),
        (400, _no("SCRAPE_ACTIONS_NOT_SUPPORTED"), Rejected, "firecrawl_rejected"),
        (401, _no(), Rejected, "firecrawl_key"),
        (402, _no(), Unavailable, "firecrawl_credits"),
        (403, _no(), PageRejected, "blocked"),
        (403, _no("UNSUPPORTED_SITE"), PageRejected, "unsupported_site"),
        (403, _no("unsafe_domain_blocked"), PageRejected, "unsafe_domain_blocked"),
        (403, _no("NO_PERMISSION"), Rejected, "firecrawl_rejected"),
        (404, b"<h1>nothing here", Rejected, "firecrawl_rejected"),
        (408, _no("SCRAPE_TIMEOUT"), FirecrawlTimeout, "firecrawl_timeout"),
        (409, _no(), Conflict, "firecrawl_conflict"),
        (413, _no(), Rejected, "firecrawl_rejected"),
        (422, _no(), Rejected, "firecrawl_rejected"),
        (429, _no(), Unavailable, "firecrawl_limit"),
        (500, _no("SCRAPE_SSL_ERROR"), PageRejected, "scrape_ssl_error"),
        (500, _no("SCRAPE_PDF_ANTIBOT_ERROR"), PageRejected, "scrape_pdf_antibot_error"),
        (500, _no("SCRAPE_SITE_ERROR"), PageUnavailable, "scrape_site_error"),
        (500, _no("SCRAPE_ALL_ENGINES_FAILED"), Unavailable, "firecrawl_unavailable"),
        (500, _no(), Unavailable, "firecrawl_unavailable"),
        (500, _no("SOMETHING_NEW"), Rejected, "firecrawl_rejected"),
        (502, b"bad gateway", Unavailable, "firecrawl_unavailable"),
        (302, b"", Rejected, "firecrawl_rejected"),
        (200, b"<h1>hello", InvalidResponse, "firecrawl_answer"),
        (200, b"[" * 100_000, InvalidResponse, "firecrawl_answer"),
        (200, [1], InvalidResponse, "firecrawl_answer"),
        (200, {"success": True}, InvalidResponse, "firecrawl_answer"),
        (200, {"success": True, "data": []}, InvalidResponse, "firecrawl_answer"),
        (200, {"success": True, "data": {"metadata": {"statusCode": 404}}}, PageRejected, "http_status"),
        (200, {"success": True, "data": {"metadata": {"statusCode": 503, "error": 7}}}, PageUnavailable, "http_status"),
    ],
)
def test_errors_map_to_their_classes(
    server: FakeFirecrawl, status: int, body: Any, kind: type[Exception], code: str
) -> None:
    """Errors depend on status, then code; faults of the page are distinguished from Firecrawl's."""
    server.wrong = lambda request: reply(status, body, {"location": "http://127.0.0.1:9/"} if status == 302 else {})
    with pytest.raises(kind) as caught:
        _scrape()
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert isinstance(caught.value, PageFault) == issubclass(kind, PageFault)
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "headers", "wait_s"),
    [
        (_no(), {"retry-after": "17"}, 17),
        (_no(), {"retry-after": "999999"}, 3600),
        (_no(), {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        (_no(), {"retry-after": "soon"}, None),
        (_no(details={"retryAfterSeconds": 30}), {}, 30),
        (_no(retry_after_seconds=4.5), {}, 4.5),
        (_no(details=[]), {}, None),
    ],
)
def test_retry_after_is_used(server: FakeFirecrawl, body: Any, headers: dict[str, str], wait_s: float | None) -> None:
    server.wrong = lambda request: reply(408, body, headers)
    with pytest.raises(FirecrawlTimeout) as caught:
        _scrape()
    assert caught.value.retry_after_s == wait_s
    server.wrong = lambda request: reply(429, body, headers)
    with pytest.raises(Unavailable) as again:
        _scrape()
    assert again.value.retry_after_s == (wait_s or 1)


def test_unknown_jobs(server: FakeFirecrawl) -> None:
    with pytest.raises(NotFound, match="Job not found"):
        _with(lambda firecrawl: firecrawl.crawl_status("none"))
    server.wrong = lambda request: reply(200, {"success": True})
    for use in (
        lambda firecrawl: firecrawl.crawl_status(CRAWL),
        lambda firecrawl: firecrawl.crawl_errors(CRAWL),
        lambda firecrawl: firecrawl.start_batch({}),
    ):
        with pytest.raises(InvalidResponse):
            _with(use)


def test_unreachable_or_silent_server_is_unavailable(server: FakeFirecrawl, settings_env: SettingsEnv) -> None:
    settings_env(firecrawl_timeout_s=0.3)
    server.wrong = lambda request: reply(200, {}, delay_s=30)
    with pytest.raises(FirecrawlTimeout, match=r"0\.3 s"):
        _with(lambda firecrawl: firecrawl.start_crawl({}))
    server.wrong = lambda request: reply(200, {"success": True, "id": "x"}, withheld_bytes=5)
    with pytest.raises(Unavailable, match="broke off"):
        _with(lambda firecrawl: firecrawl.start_crawl({}))
    settings_env(firecrawl_url="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="cannot be reached"):
        _scrape()


def test_compressed_and_oversized_answers(server: FakeFirecrawl, settings_env: SettingsEnv) -> None:
    squeezed = {"success": True, "data": {"markdown": "x" * 5000}}
    server.wrong = lambda request: reply(200, squeezed, gzipped=True)
    assert len(_scrape()["markdown"]) == 5000
    settings_env(firecrawl_max_bytes=2000)
    with pytest.raises(InvalidResponse, match="larger than 2,000 bytes"):
        _scrape()
    server.wrong = lambda request: reply(200, b"no gzip", {"content-encoding": "gzip"})
    with pytest.raises(Unavailable):
        _scrape()


@pytest.mark.parametrize(
    ("name", "value"),
    [("firecrawl_url", "firecrawl:3002"), ("firecrawl_url", "http://a:b@c/"), ("firecrawl_api_key", "two words")],
)
def test_invalid_settings_are_refused(settings_env: SettingsEnv, name: str, value: str) -> None:
    settings_env(**{name: value})
    with pytest.raises(ConfigError, match=name.upper()):
        get_settings()
