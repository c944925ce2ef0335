"""Addresses of files: read like uploads, whoever asks for the address."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.core.db import Database, database
from app.core.errors import Rejected
from app.core.ids import uuid7
from app.documents import catalog
from app.documents.accept.accept import About
from app.documents.accept.uploads import find_original
from app.documents.files import sniff
from app.jobs.ledger import claims, workers
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.sources.crawls.rules import CrawlRules
from app.sources.fetching.page_text import PageText, fetch
from app.sources.jobs import FetchPage
from app.sources.pages import accept_page, fetch_and_ingest
from app.sources.scraping.scrape import PageRequest, scrape
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support import made_documents
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk


@pytest.fixture
def private(settings_env: SettingsEnv, tmp_path: Path) -> None:
    settings_env(fetch_private="true", fetch_timeout_s=5, data_dir=tmp_path / "data")


def _serve(site: FakeSite, path: str, file: Path | bytes, media_type: str | None, **headers: str) -> str:
    body = file.read_bytes() if isinstance(file, Path) else file
    named = {} if media_type is None else {"content-type": media_type}
    site.pages[path] = site_page(body, headers=named | {name.replace("_", "-"): text for name, text in headers.items()})
    return site.url + path


def _fetch(url: str) -> PageText:
    return asyncio.run(fetch(url))


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize(
    ("ending", "media_type", "kind"),
    [
        ("pdf", "application/pdf", sniff.PDF),
        ("pdf", "text/html; charset=utf-8", sniff.PDF),
        ("pdf", "application/octet-stream", sniff.PDF),
        ("pdf", None, sniff.PDF),
        ("docx", sniff.DOCX, sniff.DOCX),
        ("docx", "application/zip", sniff.DOCX),
        ("xlsx", "binary/octet-stream", sniff.XLSX),
        ("csv", "text/csv", "text/csv"),
        ("eml", "message/rfc822", sniff.EML),
    ],
)
def test_a_file_is_known_by_its_content(
    site: FakeSite, tmp_path: Path, ending: str, media_type: str | None, kind: str
) -> None:
    made = made_documents.make(tmp_path, ending, "weir")
    page = _fetch(_serve(site, f"/files/weir%20plan.{ending}?v=1", made.path, media_type))
    assert (page.format, page.text) == ("file", "")
    assert page.original is not None
    assert (page.original.media_type, page.original.file_name) == (kind, f"weir plan.{ending}")
    assert page.original.size_bytes == made.path.stat().st_size


@pytest.mark.usefixtures("private")
def test_the_server_may_name_the_file(site: FakeSite, tmp_path: Path) -> None:
    made = made_documents.make(tmp_path, "pdf", "weir").path
    for header, name in (
        ('attachment; filename="The plan.pdf"', "The plan.pdf"),
        ("attachment; filename=plan.pdf; size=7", "plan.pdf"),
        ("inline; filename=x.pdf; filename*=UTF-8''Gr%C3%BC%C3%9Fe.pdf", "Grüße.pdf"),
        ('attachment; filename="../../etc/passwd.pdf"', "passwd.pdf"),
    ):
        url = _serve(site, "/get?id=7", made, "application/pdf", content_disposition=header)
        original = _fetch(url).original
        assert original is not None and original.file_name == name


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"\x7fELF\x02\x01\x01" + bytes(60), "application/octet-stream"),
        (b"words only", "application/pdf"),
        (b"p { color: red }", "text/css"),
        (b"alert(1)", "application/javascript"),
        (b"ID3\x03" + bytes(60), "audio/mpeg"),
        (b"PK\x03\x04garbage", "application/zip"),
    ],
)
def test_what_no_upload_may_be_is_refused(site: FakeSite, body: bytes, media_type: str) -> None:
    with pytest.raises(Rejected, match=media_type) as refusal:
        _fetch(_serve(site, "/x", body, media_type))
    assert refusal.value.code == "media_type"


@pytest.mark.usefixtures("private")
def test_pages_stay_pages(site: FakeSite) -> None:
    page = _fetch(_serve(site, "/page", b"<p>The PDF is at %PDF-1.7</p>", "text/html"))
    assert (page.format, page.original) == ("html", None)
    assert _fetch(_serve(site, "/note.txt", b"# Words", "text/plain")).format == "text"


def test_a_file_behind_an_address_is_a_document(
    db: Database, settings_env: SettingsEnv, site: FakeSite, tmp_path: Path
) -> None:
    """Its pages, its title and its original; the same file again changes nothing."""
    url = db.engine.url.render_as_string(hide_password=False)
    settings_env(fetch_private="true", database_url=url, fetch_host_delay_s=0, data_dir=tmp_path / "data")
    desk = Desk(database())
    worker = uuid7()
    desk.db.transaction(workers.register, worker, ["fetch"], 1, None)
    made = made_documents.make(tmp_path, "pdf", "weir")
    address = _serve(site, "/plan.pdf", made.path, "application/pdf")

    def run() -> dict[str, Any]:
        row = desk.db.transaction(accept_page, About(url=address, tags=("x",)), tenant=TENANT)
        claim = desk.db.transaction(claims.claim, [row.id], worker)[0]
        job = FetchPage.load(claim.payload, claim.payload_version)
        return asyncio.run(fetch_and_ingest(job, Progress(claim, ProgressPublisher(lambda claim, snapshot: None))))

    first = run()
    assert first["status"] == "indexed"
    document = desk.db.read(catalog.document_detail, TENANT, first["document_id"])
    assert (document["title"], document["url"], document["tags"]) == ("A plan", address, ["x"])
    assert document["versions"][0]["media_type"] == sniff.PDF and made.sentence is not None
    assert made.sentence in document["text"]
    original = desk.db.read(find_original, TENANT, first["document_id"])
    assert (original.file_name, original.size_bytes) == ("plan.pdf", made.path.stat().st_size)
    [hit] = desk.find("weir wheel", mode="keyword")["results"]
    assert hit["url"] == address
    assert run()["status"] == "unchanged"
    _serve(site, "/plan.pdf", made_documents.make(tmp_path, "docx", "heron").path, None)
    assert run()["status"] == "indexed"
    assert desk.find("heron", mode="keyword")["total"] == 1 and desk.find("weir", mode="keyword")["total"] == 0


def test_a_file_is_scraped_as_its_text(
    sqlite_url: str, settings_env: SettingsEnv, site: FakeSite, tmp_path: Path
) -> None:
    settings_env(database_url=sqlite_url, redis_url="redis://127.0.0.1:9/0", fetch_private="true", data_dir=tmp_path)
    made = made_documents.make(tmp_path, "docx", "weir")
    url = _serve(site, "/report.docx", made.path, "application/octet-stream")
    request = PageRequest(url, ("markdown",), 30_000, 0, handling="returnOnly")
    page = asyncio.run(scrape(TENANT, request))
    assert made.sentence is not None and made.sentence in page["content"] and "# Findings" in page["content"]
    assert page["contentType"] == "text/markdown"


def test_a_crawl_follows_links_to_files() -> None:
    rules = CrawlRules("https://example.org/")
    for name in ("plan.pdf", "report.docx", "levels.xlsx", "slides.pptx", "book.epub"):
        assert rules.allows(f"https://example.org/{name}")
    for name in ("wheel.png", "old.doc", "sound.mp3", "all.zip", "page.css"):
        assert not rules.allows(f"https://example.org/{name}")
