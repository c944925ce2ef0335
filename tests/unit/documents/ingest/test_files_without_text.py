"""Files without text are documents, found by what is known of them, and are read again when tesseract is there."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.blobs import blobs
from app.core.errors import InvalidInput
from app.documents import catalog
from app.documents.accept.accept import About
from app.documents.accept.uploads import Original, accept_file
from app.documents.extract import ocr
from app.documents.files.sniff import sniff
from app.documents.ingest.scans import read_scans
from app.documents.jobs import ReadScans
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.jobs.sandbox import process_pool
from tests.support import made_documents, make_pdf
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk
from tests.support.services import missing


def _upload(desk: Desk, path: Path, **about: Any) -> dict[str, Any]:
    """Accept the file and run its job; return the document."""
    kind = sniff(path, path.name)
    assert kind is not None
    blob = asyncio.run(blobs().put_file(path))
    original = Original(blob.key, blob.size_bytes, kind, path.name)
    accepted = desk.db.transaction(accept_file, About(**about), original, tenant=TENANT)
    assert accepted.job is not None
    desk.work(accepted.job.id)
    desk.follow()
    return desk.db.read(catalog.document_detail, TENANT, str(accepted.document_id))


def _scan(desk: Desk) -> dict[str, Any]:
    job_id = desk.db.transaction(lambda session: enqueue(session, ReadScans(), tenant=TENANT).id)
    progress = desk.claim(job_id)
    result = asyncio.run(read_scans(progress))
    desk._finish(progress.claim, "succeeded", result=result)
    return result


def _waiting(desk: Desk) -> list[str]:
    query = sa.select(JobRow.id).where(JobRow.kind == "documents.reprocess", JobRow.state == "queued")
    return list(desk.db.read(lambda session: session.scalars(query).all()))


@pytest.fixture
def no_tesseract(monkeypatch: pytest.MonkeyPatch, settings_env: SettingsEnv, tmp_path: Path) -> None:
    """A machine whose PATH has no tesseract."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert not ocr.is_installed()


def test_a_file_without_text_is_found_by_what_is_known_of_it(desk: Desk, tmp_path: Path) -> None:
    path = make_pdf.write(tmp_path / "Sluice-plan_1890.pdf", [[]], title="Weir of the upper mill")
    document = _upload(desk, path, tags=("archive7",), metadata={"from": "Ferdinand"}, description="Drawn by hand")
    assert (document["no_text"], document["metadata"]["no_text"]) == ("empty", "empty")
    assert (document["state"], document["text"], document["title"]) == ("indexed", "", "Weir of the upper mill")
    for words in ("weir", "sluice", "1890", "archive7", "Ferdinand", "drawn"):
        for mode in ("keyword", "hybrid"):
            [hit] = desk.find(words, mode=mode)["results"]
            assert hit["document_id"] == document["id"] and hit["text"] == ""
    assert desk.find("empty", mode="keyword")["total"] == 0


def test_a_document_with_text_has_no_reason(desk: Desk, tmp_path: Path) -> None:
    document = _upload(desk, made_documents.make(tmp_path, "pdf", "weir").path)
    assert document["no_text"] is None and "no_text" not in document["metadata"]


def test_text_sent_without_words_is_still_refused(desk: Desk) -> None:
    with pytest.raises(InvalidInput, match="no text"):
        desk.put("<html><body><script>x()</script></body></html>", format="html")


@pytest.mark.usefixtures("no_tesseract")
def test_a_picture_without_tesseract_says_so(tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    made_documents.picture("The penstock").save(picture)
    assert ocr.extract(picture).about()["metadata"] == {"no_text": "ocr_missing", "ocr_missing": True}
    (tmp_path / "torn.png").write_bytes(picture.read_bytes()[:60])
    with pytest.raises(InvalidInput, match="broken"):
        ocr.extract(tmp_path / "torn.png")


def test_pictures_are_read_again_once_tesseract_is_installed(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan, a photograph, and a scan with a page of text; each is read once more, and then never again."""
    if shutil.which("tesseract") is None:
        missing("tesseract", "apt-get install tesseract-ocr")
    picture = made_documents.picture("The penstock is closed")
    picture.save(tmp_path / "photo.png")
    paths = [
        make_pdf.write(tmp_path / "scan.pdf", [picture]),
        make_pdf.write(tmp_path / "mixed.pdf", [make_pdf.of_lines(["A page of letters, not of pictures."]), picture]),
        tmp_path / "photo.png",
    ]
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path / "nothing"))
        process_pool.stop_pool()
        documents = [_upload(desk, path) for path in paths]
        assert [document["no_text"] for document in documents] == ["ocr_missing", None, "ocr_missing"]
        assert all(document["metadata"]["ocr_missing"] for document in documents)
        assert _scan(desk) == {"documents": 0}
    process_pool.stop_pool()
    assert desk.find("penstock", mode="keyword")["total"] == 0
    assert _scan(desk) == {"documents": 3}
    assert _scan(desk) == {"documents": 0}  # their jobs are open
    for job_id in _waiting(desk):
        desk.work(job_id)
        desk.follow()
    assert desk.find("penstock", mode="keyword")["total"] == 3
    for document in documents:
        again = desk.db.read(catalog.document_detail, TENANT, document["id"])
        assert again["no_text"] is None and "ocr_missing" not in again["metadata"]
    assert _scan(desk) == {"documents": 0}
