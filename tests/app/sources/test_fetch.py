"""A page is fetched from a checked address, within its limits, and says why not."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.core.db import Database, database
from app.core.errors import Conflict, InvalidInput, Rejected, Unavailable
from app.core.guard import is_public, resolve
from app.core.ids import uuid7
from app.documents import catalog
from app.documents.accept import About
from app.jobs import ledger, workers
from app.jobs.progress import Progress, Teller
from app.sources.fetch import Page, fetch
from app.sources.jobs import FetchPage
from app.sources.pages import accept_page, fetch_and_ingest
from app.tenants.models import Tenant
from tests.app.sources.conftest import Answer, Site
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk

HTML = "<html><head><title>Mühlen</title></head><body><p>" + "Das Wasser treibt die Räder. " * 6 + "</p></body></html>"


@pytest.fixture
def private(settings_env: SettingsEnv) -> None:
    settings_env(fetch_private="true", fetch_timeout_s=2, fetch_max_bytes=50_000)


def _fetch(url: str) -> Page:
    return asyncio.run(fetch(url))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "fec0::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "::1"])
def test_every_way_to_say_here_is_refused(settings_env: SettingsEnv, host: str) -> None:
    """However the name is written, what counts is the address it comes to."""
    with pytest.raises(Rejected):
        asyncio.run(resolve(host, 80))


def test_a_redirect_to_a_private_address_is_refused(settings_env: SettingsEnv, site: Site) -> None:
    """Each hop is checked, the first too."""
    with pytest.raises(Rejected, match="not on the public internet"):
        _fetch(f"{site.url}/")
    assert site.asked == []


@pytest.mark.usefixtures("private")
def test_redirects_are_followed_and_counted(site: Site) -> None:
    """Relative and absolute ones; the Host header is the name, not the address."""
    site.pages["/a"] = Answer(status=302, headers={"location": "b"})
    site.pages["/b"] = Answer(status=301, headers={"location": f"{site.url.replace('127.0.0.1', 'localhost')}/c"})
    site.pages["/c"] = Answer(HTML.encode())
    site.pages["/loop"] = Answer(status=302, headers={"location": "/loop"})
    page = _fetch(f"{site.url}/a")
    assert (page.status_code, page.format, page.text) == (200, "html", HTML)
    assert page.url.endswith("/c") and site.asked[-1][1].startswith("localhost:")
    with pytest.raises(Rejected, match="redirects"):
        _fetch(f"{site.url}/loop")
    site.pages["/away"] = Answer(status=302, headers={"location": "file:///etc/passwd"})
    with pytest.raises(InvalidInput):
        _fetch(f"{site.url}/away")


@pytest.mark.usefixtures("private")
def test_limits_and_answers(site: Site) -> None:
    """Too large, of a wrong type, refused: final. Overloaded or silent: another try."""
    site.pages["/large"] = Answer(b"x" * 10_000, times=10)
    site.pages["/pdf"] = Answer(b"%PDF", headers={"content-type": "application/pdf"})
    site.pages["/busy"] = Answer(status=429, headers={"retry-after": "7"})
    site.pages["/broken"] = Answer(status=500)
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


@pytest.mark.usefixtures("private")
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
def test_encodings(site: Site, body: bytes, media_type: str) -> None:
    site.pages["/"] = Answer(body, headers={"content-type": media_type})
    assert "Räder" in _fetch(f"{site.url}/").text


def test_a_url_alone_becomes_a_document(db: Database, settings_env: SettingsEnv, site: Site) -> None:
    """Accepted at once, fetched and indexed by its job; a second time only what changed."""
    settings_env(fetch_private="true", database_url=db.engine.url.render_as_string(hide_password=False))

    desk = Desk(database())
    site.pages["/page"] = Answer(HTML.encode())
    worker = uuid7()
    desk.db.transaction(workers.register, worker, ["fetch"], 1, None)

    def run() -> dict[str, Any]:
        row = desk.db.transaction(accept_page, About(url=f"{site.url}/page", tags=("x",)), tenant=TENANT)
        claim = desk.db.transaction(ledger.claim, [row.id], worker)[0]
        job = FetchPage.load(claim.payload, claim.payload_version)
        return asyncio.run(fetch_and_ingest(job, Progress(claim, Teller(lambda claim, snapshot: None))))

    first = run()
    assert (first["status"], list(first["timings_ms"])) == (
        "indexed",
        ["fetch", "store", "extract", "chunk", "embed", "index"],
    )
    hit = desk.find("rad wasser", mode="keyword")["results"][0]
    assert (hit["title"], hit["metadata"]["tags"], hit["metadata"]["language"]) == ("Mühlen", ["x"], "de")
    again = run()
    assert (again["status"], list(again["timings_ms"])) == ("unchanged", ["fetch", "store"])


def test_a_page_beyond_the_quota_fails_and_leaves_what_there_was(
    db: Database, settings_env: SettingsEnv, site: Site
) -> None:
    settings_env(fetch_private="true", database_url=db.engine.url.render_as_string(hide_password=False))
    desk = Desk(database())
    worker = uuid7()
    desk.db.transaction(workers.register, worker, ["fetch"], 1, None)

    def run(body: str) -> dict[str, object]:
        site.pages["/page"] = Answer(body.encode(), headers={"content-type": "text/plain"})
        row = desk.db.transaction(accept_page, About(url=f"{site.url}/page"), tenant=TENANT)
        claim = desk.db.transaction(ledger.claim, [row.id], worker)[0]
        job = FetchPage.load(claim.payload, claim.payload_version)
        return asyncio.run(fetch_and_ingest(job, Progress(claim, Teller(lambda claim, snapshot: None))))

    def limit(session: Session) -> None:
        session.get_one(Tenant, TENANT).max_bytes = 100

    desk.db.transaction(limit)
    assert run("Water turns the mill.")["status"] == "indexed"
    with pytest.raises(Conflict) as refused:
        run("Wind turns the mill. " * 5)
    assert refused.value.code == "quota_bytes"
    assert desk.find("water", mode="keyword")["results"]
    assert desk.db.read(catalog.stored_bytes, TENANT) == 21
