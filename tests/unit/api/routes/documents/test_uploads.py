"""Uploads: stored, read, searchable, downloadable; refused with a reason; each once."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pypdf
import pytest
import sqlalchemy as sa

from app.api.routes.documents.uploads import content_disposition
from app.core import clock
from app.core.blobs import blobs
from app.core.db import database
from app.core.errors import InvalidInput
from app.documents.files import originals
from app.documents.models import DocumentVersion
from tests.support import made_documents, make_pdf
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk
from tests.support.problems import assert_problem
from tests.support.searches import search_ids
from tests.unit.api.conftest import Api

PATH = "/api/documents/upload"


@pytest.fixture
def desk(api: Api) -> Desk:
    return Desk(database())


def send(client: httpx.Client, *paths: Path, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    files = [("file", (path.name, path.read_bytes())) for path in paths]
    return client.post(PATH, files=files, data=fields, headers=headers)


def test_a_file_is_read_found_and_given_back(api: Api, desk: Desk, tmp_path: Path) -> None:
    made = made_documents.make(tmp_path, "pptx", "penstock")
    answer = send(api.client, made.path, tags=["a", "b"], metadata='{"case": 7}')
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/api/jobs/{job['id']}"
    assert job["file_name"] == "penstock.pptx"
    before = api.client.get(f"/api/documents/{job['document_id']}").json()
    assert (before["state"], before["text"]) == ("received", None)
    desk.work(job["id"])
    shown = api.client.get(f"/api/documents/{job['document_id']}").json()
    assert (shown["state"], shown["pages"], shown["tags"], shown["metadata"]["case"]) == ("indexed", 2, ["a", "b"], 7)
    version = shown["versions"][0]
    assert (version["file_name"], version["page_count"]) == ("penstock.pptx", 2)
    assert version["size_bytes"] == made.path.stat().st_size
    hit = api.client.post("/api/search", json={"query": "penstock"}).json()["results"][0]
    assert hit["document_id"] == job["document_id"] and hit["chunk"]["page"] in (1, 2)
    original = api.client.get(f"/api/documents/{job['document_id']}/original")
    assert original.content == made.path.read_bytes()
    assert original.headers["content-disposition"] == (
        "attachment; filename=\"penstock.pptx\"; filename*=UTF-8''penstock.pptx"
    )
    assert original.headers["x-content-type-options"] == "nosniff"


def test_a_hit_says_the_page_it_stands_on(api: Api, desk: Desk, tmp_path: Path) -> None:
    filler = make_pdf.of_lines(["The stream runs by day and by night, and nobody counts it."] * 20)
    pages = [filler, filler, [*filler, make_pdf.Line("Here alone the penstock is named.", 72, 100)]]
    job = send(api.client, make_pdf.write(tmp_path / "plan.pdf", pages)).json()
    desk.work(job["id"])
    [hit] = api.client.post("/api/search", json={"query": "penstock", "mode": "keyword"}).json()["results"]
    text = api.client.get(f"/api/documents/{job['document_id']}").json()["text"]
    assert text[hit["chunk"]["start"] : hit["chunk"]["end"]] == hit["text"]
    assert hit["chunk"]["page"] == 3


def test_many_files_and_one_that_is_hostile(api: Api, desk: Desk, tmp_path: Path) -> None:
    """Each is a job of its own; refused files are listed next to them; a bomb fails alone."""
    made = made_documents.make_all(tmp_path, 14)
    strange = tmp_path / "program.bin"
    strange.write_bytes(b"\x7fELF" + bytes(100))
    empty = tmp_path / "empty.txt"
    empty.touch()
    answer = send(api.client, *[one.path for one in made], strange, empty)
    assert answer.status_code == 202
    taken, errors = answer.json()["data"], answer.json()["errors"]
    assert [(one["file_name"], one["code"]) for one in errors] == [
        ("program.bin", "unsupported_type"), ("empty.txt", "empty_document"),
    ]  # fmt: skip
    assert len(taken) == 14
    for one, file in zip(taken, made, strict=True):
        if file.sentence is None:
            with pytest.raises(InvalidInput):
                desk.work(one["job"]["id"])
            shown = api.client.get(f"/api/documents/{one['document_id']}").json()
            assert (shown["state"], shown["last_job"]["error"]["code"]) == ("failed", "archive_bomb")
        else:
            desk.work(one["job"]["id"])
            word = file.path.stem
            assert search_ids(api.client, word) == [one["document_id"]], file.path.name


def test_what_cannot_be_taken_is_refused(api: Api, desk: Desk, tmp_path: Path, app_env: SettingsEnv) -> None:
    strange = tmp_path / "program"
    strange.write_bytes(bytes(100))
    assert_problem(send(api.client, strange), 415, "unsupported_type")
    empty = tmp_path / "empty.md"
    empty.touch()
    assert_problem(send(api.client, empty), 422, "empty_document")
    app_env(max_upload_bytes=2048)
    large = tmp_path / "large.txt"
    large.write_text("word " * 1000)
    assert_problem(send(api.client, large), 413, "body_too_large")
    small = tmp_path / "small.txt"
    small.write_text("word")
    assert_problem(api.client.post(PATH, json={}), 422, "multipart")
    assert_problem(api.client.post(PATH, files={"other": b"x"}), 422, "field")
    assert_problem(api.client.post(PATH, data={"title": "x"}, files={"file": ("", b"")}), 422, "no_file")
    assert_problem(send(api.client, small, metadata="{"), 422, "field")
    assert_problem(send(api.client, small, colour="red"), 422, "field")
    assert_problem(send(api.client, small, duplicates="perhaps"), 422, "field")
    assert_problem(send(api.client, small, small, title="both"), 422, "field")
    assert_problem(send(api.client, small, collection="nowhere"), 404, "collection_not_found")
    assert api.client.get("/api/documents").json()["data"] == []
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    assert api.client.post(PATH, content=b"no form at all", headers=boundary).status_code in (400, 422)


def test_the_same_bytes_again(api: Api, desk: Desk, tmp_path: Path) -> None:
    """A document of its own, the one there is, or refused, as the caller says; under one key one answer."""
    made = made_documents.make(tmp_path, "docx", "again").path
    first = send(api.client, made).json()
    desk.work(first["id"])
    linked = send(api.client, made, duplicates="link")
    assert linked.status_code == 200
    assert (linked.json()["document_id"], linked.json()["duplicate"]) == (first["document_id"], True)
    assert_problem(send(api.client, made, duplicates="reject"), 409, "duplicate")
    broken = made_documents.bomb(tmp_path / "broken.docx")
    failed = send(api.client, broken, duplicates="link").json()
    assert send(api.client, broken, duplicates="link").json()["document_id"] == failed["document_id"]
    with pytest.raises(InvalidInput):
        desk.work(failed["id"])
    assert send(api.client, broken, duplicates="link").status_code == 202, "what failed is no reason to refuse"
    other = send(api.client, made).json()
    assert other["document_id"] != first["document_id"]
    same = send(api.client, made, external_id="k").json()
    desk.work(same["id"])
    unchanged = send(api.client, made, external_id="k").json()
    assert desk.work(unchanged["id"])["status"] == "unchanged"
    key = {"Idempotency-Key": "one"}
    once, twice = send(api.client, made, headers=key), send(api.client, made, headers=key)
    assert once.json()["id"] == twice.json()["id"] and twice.headers["idempotency-replayed"] == "true"
    other_file = made_documents.make(tmp_path, "md", "other").path
    assert_problem(send(api.client, other_file, headers=key), 422, "idempotency_key_reused")


def test_an_e_mail_brings_its_attachments_along(api: Api, desk: Desk, tmp_path: Path) -> None:
    letter = tmp_path / "letter.eml"
    made_documents.as_eml(letter, "See the notes.", attachment=b"The penstock is to be painted.")
    job = send(api.client, letter, tags=["post"]).json()
    desk.work(job["id"])
    shown = api.client.get(f"/api/documents/{job['document_id']}").json()
    [child] = shown["attachments"]
    inside = api.client.get(f"/api/documents/{child}").json()
    assert (inside["title"], inside["parent_id"], inside["tags"]) == ("notes.txt", job["document_id"], ["post"])
    desk.work(inside["last_job"]["id"])
    assert search_ids(api.client, "penstock") == [child]
    # Read again, it is the same attachment.
    again = api.client.post(f"/api/documents/{job['document_id']}/reprocess").json()
    assert desk.work(again["id"])["status"] == "indexed"
    assert api.client.get(f"/api/documents/{job['document_id']}").json()["attachments"] == [child]
    assert api.client.delete(f"/api/documents/{job['document_id']}").status_code == 204
    assert search_ids(api.client, "penstock") == []


def test_a_document_is_read_again(api: Api, desk: Desk, tmp_path: Path) -> None:
    """From its original after a failure, from its text where it came as text; unchanged text is not embedded again."""
    job = send(api.client, made_documents.make(tmp_path, "odt", "again").path).json()
    desk.work(job["id"])
    again = api.client.post(f"/api/documents/{job['document_id']}/reprocess")
    assert again.status_code == 202
    result = desk.work(again.json()["id"])
    assert (result["status"], result["embedded"]) == ("indexed", 0)
    note = api.client.post("/api/documents", json={"markdown": "# Weirs\n\nA weir."}).json()
    desk.work(note["id"])
    desk.work(api.client.post(f"/api/documents/{note['document_id']}/reprocess").json()["id"])
    assert search_ids(api.client, "weir") == [note["document_id"]]
    assert_problem(api.client.get(f"/api/documents/{note['document_id']}/original"), 404, "no_original")
    assert_problem(api.client.post("/api/documents/999/reprocess"), 404, "document_not_found")


def test_a_key_for_a_collection_uploads_there_and_nowhere_else(api: Api, desk: Desk, tmp_path: Path) -> None:
    api.client.post("/api/collections", json={"name": "mine"})
    made = made_documents.make(tmp_path, "txt", "ours").path
    theirs = send(api.client, made).json()
    with holder(api, "collection:mine") as one:
        assert_problem(one.get(f"/api/documents/{theirs['document_id']}/original"), 404, "document_not_found")
        # What it may not see is not linked to either.
        job = send(one, made, duplicates="link").json()
        assert api.client.get(f"/api/documents/{job['document_id']}").json()["collection"] == "mine"
        assert one.get(f"/api/documents/{job['document_id']}/original").content == made.read_bytes()
        assert_problem(send(one, made, collection="other"), 403, "scope_missing")


def test_originals_that_nothing_names_are_swept_after_a_day(api: Api, desk: Desk, tmp_path: Path) -> None:
    job = send(api.client, made_documents.make(tmp_path, "md", "kept").path).json()

    async def run() -> None:
        store = blobs()
        stray = await store.put(b"nobody's")
        assert await originals.sweep_blobs(store) == 0
        clock.shift(timedelta(days=2))
        try:
            assert await originals.sweep_blobs(store) == 1
        finally:
            clock.shift(timedelta(0))
        assert stray.key not in {key async for key, _ in store.written()}

    asyncio.run(run())
    assert api.client.get(f"/api/documents/{job['document_id']}/original").status_code == 200


def test_the_form_stands_in_the_openapi_document(api: Api) -> None:
    operation = api.anyone.get("/openapi.json").json()["paths"][PATH]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "file" in form["properties"] and json.dumps(form)


def test_a_locked_pdf_opens_with_its_password(api: Api, desk: Desk, tmp_path: Path) -> None:
    """Given with the file, or afterwards; it is nowhere to be seen, and gone when it has served or failed."""
    whole = made_documents.make(tmp_path, "pdf", "penstock").path
    writer = pypdf.PdfWriter(clone_from=whole)
    writer.encrypt("sesame", algorithm="AES-256")
    locked = tmp_path / "locked.pdf"
    writer.write(str(locked))

    def kept() -> list[str | None]:
        return desk.db.read(lambda session: list(session.scalars(sa.select(DocumentVersion.password))))

    first = send(api.client, locked).json()
    with pytest.raises(InvalidInput, match="encrypted"):
        desk.work(first["id"])
    again = api.client.post(f"/api/documents/{first['document_id']}/reprocess", json={"password": "wrong"}).json()
    assert "wrong" in kept() and "wrong" not in json.dumps(api.client.get(f"/api/jobs/{again['id']}").json())
    with pytest.raises(InvalidInput, match="the password does not open the PDF"):
        desk.work(again["id"])
    assert set(kept()) == {None}
    third = api.client.post(f"/api/documents/{first['document_id']}/reprocess", json={"password": "sesame"}).json()
    assert desk.work(third["id"])["status"] == "indexed"
    assert set(kept()) == {None}
    given = send(api.client, locked, password="sesame", external_id="x").json()
    assert "sesame" not in api.client.get(f"/api/documents/{given['document_id']}").text
    assert desk.work(given["id"])["status"] == "indexed"
    assert api.client.post("/api/search", json={"query": "penstock", "mode": "keyword"}).json()["total"] == 2


@pytest.mark.parametrize(
    ("name", "plain", "extended"),
    [
        ("a b.pdf", "a b.pdf", "a%20b.pdf"),
        ("Müller & Söhne.pdf", "Muller & Sohne.pdf", "M%C3%BCller%20%26%20S%C3%B6hne.pdf"),
        ('say "hi"; 50%.txt', "say _hi__ 50_.txt", "say%20%22hi%22%3B%2050%25.txt"),
        ("履歴書.docx", "file.docx", "%E5%B1%A5%E6%AD%B4%E6%9B%B8.docx"),
        ("履歴書", "file", "%E5%B1%A5%E6%AD%B4%E6%9B%B8"),
    ],
)
def test_a_download_has_a_name_for_every_client(name: str, plain: str, extended: str) -> None:
    assert content_disposition(name) == f"attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}"
