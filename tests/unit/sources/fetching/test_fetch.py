"""Fetching a page: checked addresses, limits, and the reasons of refusals."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import Database, database
from app.core.errors import Conflict, InvalidInput, Rejected, Unavailable
from app.core.ids import uuid7
from app.documents import catalog
from app.documents.accept.accept import About
from app.jobs.ledger import claims, workers
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.sources.fetching import connections
from app.sources.fetching.page_text import NotModified, PageText, Validators, fetch
from app.sources.jobs import FetchPage
from app.sources.pages import accept_page, fetch_and_ingest
from app.tenants.models import Tenant
from tests.fakes.server import Response
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk

HTML = "<html><head><title>Mühlen</title></head><body><p>" + "Das Wasser treibt die Räder. " * 6 + "</p></body></html>"


@pytest.fixture
def private_allowed(settings_env: SettingsEnv) -> None:
    settings_env(fetch_private="true", fetch_timeout_s=2, fetch_max_bytes=50_000)


def _fetch(url: str) -> PageText:
    return asyncio.run(fetch(url))


def test_a_redirect_to_a_private_address_is_refused(settings_env: SettingsEnv, site: FakeSite) -> None:
    """Each hop is checked, the first too."""
    with pytest.raises(Rejected, match="not on the public internet"):
        _fetch(f"{site.url}/")
    assert site.visits == []


@pytest.mark.usefixtures("private_allowed")
def test_redirects_are_followed_and_counted(site: FakeSite) -> None:
    """Relative and absolute ones; the Host header is the name, not the address."""
    site.pages["/a"] = site_page(status=302, headers={"location": "b"})
    site.pages["/b"] = site_page(status=301, headers={"location": f"{site.url.replace('127.0.0.1', 'localhost')}/c"})
    site.pages["/c"] = site_page(HTML.encode())
    site.pages["/loop"] = site_page(status=302, headers={"location": "/loop"})
    page = _fetch(f"{site.url}/a")
    assert (page.status_code, page.format, page.text) == (200, "html", HTML)
    assert page.url.endswith("/c") and site.visits[-1][1].startswith("localhost:")
    with pytest.raises(Rejected, match="redirects"):
        _fetch(f"{site.url}/loop")
    site.pages["/away"] = site_page(status=302, headers={"location": "file:///etc/passwd"})
    with pytest.raises(InvalidInput):
        _fetch(f"{site.url}/away")


@pytest.mark.usefixtures("private_allowed")
def test_limits_and_answers(site: FakeSite) -> None:
    """Too large, of a wrong type, refused: final. Overloaded or silent: another try."""
    site.pages["/large"] = site_page(b"x" * 10_000, repeat=10)
    site.pages["/pdf"] = site_page(b"%PDF", headers={"content-type": "application/pdf"})
    site.pages["/busy"] = site_page(status=429, headers={"retry-after": "7"})
    site.pages["/broken"] = site_page(status=500)
    for path, reason in (("/large", "larger"), ("/pdf", "application/pdf"), ("/missing", "404")):
        with pytest.raises(Rejected, match=reason):
            _fetch(site.url + path)
    with pytest.raises(Unavailable) as busy:
        _fetch(f"{site.url}/busy")
    assert busy.value.retry_after_s == 7
    with pytest.raises(Unavailable, match="500"):
        _fetch(f"{site.url}/broken")
    with pytest.raises(Unavailable):
        _fetch("http://127.0.0.1:9/")


@pytest.mark.usefixtures("private_allowed")
@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ("<p>Räder</p>".encode("latin-1"), "text/html; charset=iso-8859-1"),
        (b'<meta charset="windows-1252">' + "Räder".encode("cp1252"), "text/html"),
        ("Räder".encode("utf-16"), "text/plain"),
        ("Räder".encode(), "text/plain; charset=nonsense"),
        ("Räder".encode("cp1252"), "text/markdown"),
    ],
)
def test_encodings(site: FakeSite, body: bytes, media_type: str) -> None:
    site.pages["/"] = site_page(body, headers={"content-type": media_type})
    assert "Räder" in _fetch(f"{site.url}/").text


@pytest.mark.usefixtures("private_allowed")
def test_unchanged_page_is_not_sent_again(site: FakeSite) -> None:
    """The request carries the validators of the last response."""
    dated = "Sat, 28 Nov 2026 10:00:00 GMT"
    site.pages["/"] = site_page(
        HTML.encode(), headers={"content-type": "text/html", "etag": '"one"', "last-modified": dated}
    )
    page = _fetch(f"{site.url}/")
    assert (page.etag, page.last_modified) == ('"one"', dated)
    again = asyncio.run(fetch(f"{site.url}/", validators=Validators(page.etag, page.last_modified)))
    assert again == NotModified(f"{site.url}/")
    assert site.requests[-1].headers["if-modified-since"] == dated
    changed = asyncio.run(fetch(f"{site.url}/", validators=Validators('"other"')))
    assert isinstance(changed, PageText) and changed.text == HTML
    site.pages["/odd"] = site_page(status=304)
    with pytest.raises(Rejected, match="304"):
        _fetch(f"{site.url}/odd")


@pytest.mark.usefixtures("private_allowed")
@pytest.mark.parametrize("packing", ["gzip", "deflate", "raw", "members"])
def test_compressed_pages_are_decoded_and_bombs_refused(site: FakeSite, packing: str) -> None:
    """The limit applies to the decompressed size, and memory never holds more."""
    site.pages["/"] = _packed(HTML.encode(), packing)
    assert _fetch(f"{site.url}/").text == HTML
    site.pages["/bomb"] = _packed(bytes(200_000_000), packing)
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match="larger than 50,000"):
            _fetch(f"{site.url}/bomb")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def _packed(body: bytes, packing: str) -> Response:
    squeezed = {
        "gzip": lambda: gzip.compress(body),
        "deflate": lambda: zlib.compress(body),
        "raw": lambda: zlib.compress(body)[2:-4],
        "members": lambda: gzip.compress(body[:100]) + gzip.compress(body[100:]),
    }[packing]()
    named = "gzip" if packing in ("gzip", "members") else "deflate"
    return site_page(squeezed, headers={"content-type": "text/html; charset=utf-8", "content-encoding": named})


@pytest.mark.usefixtures("private_allowed")
def test_unrequested_content_encodings_are_refused(site: FakeSite) -> None:
    for named in ("br", "zstd", "gzip, gzip"):
        site.pages["/"] = site_page(b"x", headers={"content-type": "text/html", "content-encoding": named})
        with pytest.raises(Rejected) as refused:
            _fetch(f"{site.url}/")
        assert refused.value.code == "content_encoding"


@pytest.mark.usefixtures("private_allowed")
def test_body_with_too_large_content_length_is_not_read(site: FakeSite) -> None:
    """The server needs ten seconds for the response."""
    site.pages["/"] = site_page(headers={"content-type": "text/html", "content-length": "50001"})
    with pytest.raises(Rejected) as refused:
        _fetch(f"{site.url}/")
    assert refused.value.code == "too_large"


@pytest.mark.usefixtures("private_allowed")
def test_retry_after_of_an_overloaded_server_is_used(site: FakeSite) -> None:
    """In seconds or as a date."""
    due = (clock.now() + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    for retry_after, least, most in ((due, 80.0, 90.0), ("7", 7.0, 7.0), ("999999", 3600.0, 3600.0)):
        site.pages["/"] = site_page(status=503, headers={"retry-after": retry_after})
        with pytest.raises(Unavailable) as busy:
            _fetch(f"{site.url}/")
        assert busy.value.retry_after_s is not None and least <= busy.value.retry_after_s <= most
    for retry_after in ("soon", "-1", "Sat, 99 Foo 2026"):
        site.pages["/"] = site_page(status=503, headers={"retry-after": retry_after})
        with pytest.raises(Unavailable) as busy:
            _fetch(f"{site.url}/")
        assert busy.value.retry_after_s is None


def test_slow_page_times_out(settings_env: SettingsEnv, site: FakeSite) -> None:
    settings_env(fetch_private="true", fetch_timeout_s=0.3)
    site.pages["/"] = site_page(HTML.encode(), delay_s=1.0)
    with pytest.raises(Unavailable):
        _fetch(f"{site.url}/")


def test_request_has_the_user_agent_and_no_credentials(settings_env: SettingsEnv, site: FakeSite) -> None:
    """No name or password of a URL is sent, and no cookie comes back."""
    settings_env(fetch_private="true", fetch_user_agent="Gleaner/2 (+https://example.org/bot)")
    site.pages["/"] = site_page(HTML.encode(), headers={"content-type": "text/html", "set-cookie": "who=you; Path=/"})
    asyncio.run(_fetch_twice_on_one_connection(f"{site.url.replace('://', '://me:secret@')}/"))
    first, second = site.requests
    assert first.headers["user-agent"] == "Gleaner/2 (+https://example.org/bot)"
    assert not {"authorization", "cookie"} & (first.headers.keys() | second.headers.keys())
    assert first.port == second.port, "the connection was kept"


async def _fetch_twice_on_one_connection(url: str) -> None:
    await connections.share()
    try:
        await fetch(url)
        await fetch(url)
    finally:
        await connections.close()


def test_name_that_changes_to_a_private_address_is_refused(settings_env: SettingsEnv, site: FakeSite) -> None:
    """The connection uses the checked address; a new connection resolves and checks again."""
    port = int(site.url.rpartition(":")[2])
    resolutions = iter([["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]])

    async def resolver(host: str, port: int) -> list[str]:
        return next(resolutions)

    async def ask() -> int:
        async with connections.open_client(resolver) as client:
            return int((await client.get(f"http://rebinding.example:{port}/")).status_code)

    settings_env(fetch_private="true")
    site.pages["/"] = site_page(HTML.encode())
    assert asyncio.run(ask()) == 200
    assert site.visits[-1][1] == f"rebinding.example:{port}"
    settings_env(fetch_private="false")
    for _ in range(2):
        with pytest.raises(Rejected, match="not on the public internet"):
            asyncio.run(ask())


@pytest.mark.parametrize(
    "there",
    [
        "http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://[::ffff:7f00:1]/",
        "http://169.254.169.254/latest/meta-data/", "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/",
        "http://100.64.0.1/", "http://8.8.8.8@10.0.0.1/", "//192.168.1.1/", "http://[fd00:ec2::254]/",
    ],
)  # fmt: skip
def test_redirect_of_a_public_page_cannot_reach_private_addresses(
    settings_env: SettingsEnv, site: FakeSite, there: str
) -> None:
    """The local site stands for a public one: only its address passes the check."""
    site.pages["/"] = site_page(status=302, headers={"location": there})

    async def ask() -> None:
        async def before(url: str) -> None:
            settings_env(fetch_private=str(url == f"{site.url}/").lower())

        await fetch(f"{site.url}/", before=before)

    with pytest.raises(Rejected) as refused:
        asyncio.run(ask())
    assert refused.value.code == "private_address" and len(site.requests) == 1


def test_a_url_alone_becomes_a_document(db: Database, settings_env: SettingsEnv, site: FakeSite) -> None:
    """Accepted at once, fetched and indexed by its job; a second time only what changed."""
    settings_env(fetch_private="true", database_url=db.engine.url.render_as_string(hide_password=False))

    desk = Desk(database())
    site.pages["/page"] = site_page(HTML.encode())
    worker = uuid7()
    desk.db.transaction(workers.register, worker, ["fetch"], 1, None)

    def run() -> dict[str, Any]:
        row = desk.db.transaction(accept_page, About(url=f"{site.url}/page", tags=("x",)), tenant=TENANT)
        claim = desk.db.transaction(claims.claim, [row.id], worker)[0]
        job = FetchPage.load(claim.payload, claim.payload_version)
        return asyncio.run(fetch_and_ingest(job, Progress(claim, ProgressPublisher(lambda claim, snapshot: None))))

    first = run()
    assert (first["status"], list(first["timings_ms"])) == (
        "indexed",
        ["fetch", "store", "extract", "chunk", "embed", "index"],
    )
    hit = desk.find("rad wasser", mode="keyword")["results"][0]
    assert (hit["title"], hit["metadata"]["tags"], hit["metadata"]["language"]) == ("Mühlen", ["x"], "de")
    again = run()
    assert (again["status"], list(again["timings_ms"])) == ("unchanged", ["fetch", "store"])


def test_not_modified_page_is_unchanged(
    db: Database, settings_env: SettingsEnv, redis_url: str, site: FakeSite
) -> None:
    """The job ends with the 304 response; other changes to the document are still stored."""
    url = db.engine.url.render_as_string(hide_password=False)
    settings_env(fetch_private="true", database_url=url, redis_url=redis_url, fetch_host_delay_s=0)
    desk = Desk(database())
    worker = uuid7()
    desk.db.transaction(workers.register, worker, ["fetch"], 1, None)

    def run(**about: Any) -> tuple[dict[str, Any], list[int]]:
        before = len(site.requests)
        row = desk.db.transaction(accept_page, About(url=f"{site.url}/page", **about), tenant=TENANT)
        claim = desk.db.transaction(claims.claim, [row.id], worker)[0]
        job = FetchPage.load(claim.payload, claim.payload_version)
        result = asyncio.run(fetch_and_ingest(job, Progress(claim, ProgressPublisher(lambda claim, snapshot: None))))
        return result, [len(request.headers.get("if-none-match", "")) for request in site.requests[before:]]

    site.pages["/page"] = site_page(HTML.encode(), headers={"content-type": "text/html; charset=utf-8", "etag": '"1"'})
    first, tag_lengths = run()
    assert first["status"] == "indexed" and tag_lengths == [0, 0]
    fetched_at = desk.db.read(catalog.get, TENANT, first["document_id"]).fetched_at
    again, tag_lengths = run()
    assert again["status"] == "unchanged" and tag_lengths == [3]
    assert (again["version_id"], again["chunks"]) == (first["version_id"], first["chunks"])
    seen_at = desk.db.read(catalog.get, TENANT, first["document_id"]).fetched_at
    assert fetched_at is not None and seen_at is not None and seen_at > fetched_at
    tagged, tag_lengths = run(tags=("new",))
    assert tagged["status"] == "indexed" and tag_lengths == [0]
    site.pages["/page"].headers["etag"] = '"2"'
    same, tag_lengths = run(tags=("new",))
    assert same["status"] == "unchanged" and tag_lengths == [3], "sent again, and the same"
    assert run(tags=("new",))[1] == [3] and site.requests[-1].headers["if-none-match"] == '"2"'


def test_page_over_quota_fails_and_keeps_the_stored_version(
    db: Database, settings_env: SettingsEnv, site: FakeSite
) -> None:
    settings_env(fetch_private="true", database_url=db.engine.url.render_as_string(hide_password=False))
    desk = Desk(database())
    worker = uuid7()
    desk.db.transaction(workers.register, worker, ["fetch"], 1, None)

    def run(body: str) -> dict[str, object]:
        site.pages["/page"] = site_page(body.encode(), headers={"content-type": "text/plain"})
        row = desk.db.transaction(accept_page, About(url=f"{site.url}/page"), tenant=TENANT)
        claim = desk.db.transaction(claims.claim, [row.id], worker)[0]
        job = FetchPage.load(claim.payload, claim.payload_version)
        return asyncio.run(fetch_and_ingest(job, Progress(claim, ProgressPublisher(lambda claim, snapshot: None))))

    def limit(session: Session) -> None:
        session.get_one(Tenant, TENANT).max_bytes = 100

    desk.db.transaction(limit)
    assert run("Water turns the mill.")["status"] == "indexed"
    with pytest.raises(Conflict) as refused:
        run("Wind turns the mill. " * 5)
    assert refused.value.code == "quota_bytes"
    assert desk.find("water", mode="keyword")["results"]
    assert desk.db.read(catalog.stored_bytes, TENANT) == 21
