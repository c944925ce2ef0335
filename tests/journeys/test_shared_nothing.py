"""Api and workers on hosts of their own: they share a database, a Redis and a bucket, and no disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.http import Response
from tests.journeys.conftest import Ledger
from tests.support import made_documents
from tests.support.processes import running
from tests.support.s3 import S3Server
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    with running(S3Server(tmp_path / "s3")) as server:
        yield server


def send(stack: Stack, *paths: Path) -> Response:
    files = [("file", (path.name, path.read_bytes())) for path in paths]
    return stack.client.post("/api/documents/upload", files=files)


def search_hits(stack: Stack, word: str) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = stack.post("/api/search", {"query": word, "mode": "keyword"}).json()["results"]
    return results


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # hosts that share no disk share no SQLite
def test_thirty_files_reach_workers_through_a_bucket(
    stack: Stack, ledger: Ledger, s3: S3Server, tmp_path: Path
) -> None:
    """A worker is killed on the way; a sentence of each file is found, the hostile one fails alone."""
    stack.env |= {f"MILLRACE_{name.upper()}": value for name, value in s3.settings.items()}
    stack.start(workers=0)
    stack.env["MILLRACE_DATA_DIR"] = str(tmp_path / "elsewhere")
    for _ in range(2):
        stack.add_worker()
    (tmp_path / "files").mkdir()
    made = made_documents.make_all(tmp_path / "files", 30)
    answer = send(stack, *[made_file.path for made_file in made])
    assert answer.status_code == 202, answer.text
    taken = answer.json()["data"]
    assert len(taken) == 30 and answer.json()["errors"] == []
    stack.workers[0].kill()
    rows = {row.id: row for row in ledger.wait_all([upload["job"]["id"] for upload in taken], timeout_s=120)}
    for upload, file in zip(taken, made, strict=True):
        row = rows[upload["job"]["id"]]
        if file.sentence is None:
            assert (row.state, row.error_code) == ("failed", "archive_bomb")
            continue
        assert row.state == "succeeded", (file.path.name, row.error_message)
        assert [hit["document_id"] for hit in search_hits(stack, file.path.stem)] == [upload["document_id"]]
        original = stack.client.get(f"/api/documents/{upload['document_id']}/original")
        assert original.content == file.path.read_bytes()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # which database makes no difference here
def test_bucket_outage_refuses_uploads_and_loses_no_file(
    stack: Stack, ledger: Ledger, s3: S3Server, tmp_path: Path
) -> None:
    """Uploads are refused with the reason, accepted files are read once the bucket is back, and /readyz names it."""
    stack.env |= {f"MILLRACE_{name.upper()}": value for name, value in s3.settings.items()}
    stack.env["MILLRACE_RETRY_DELAYS"] = "1,1,1,1,1,1"
    stack.start(workers=0)
    paths = [made_documents.make(tmp_path, "docx", word).path for word in ("first", "second")]
    accepted = send(stack, paths[0]).json()
    s3.process.freeze()
    try:
        refused = send(stack, paths[1])
        assert (refused.status_code, refused.json()["code"]) == (503, "blobs_unavailable")
        ready = stack.client.get("/readyz")
        assert ready.status_code == 503 and "originals" in ready.json()["missing"]
        assert stack.post("/api/documents", {"markdown": "# Text\n\nNeeds no bucket."}).status_code == 202
        stack.add_worker()
        wait_until(lambda: ledger.state(accepted["id"]) == "running", timeout_s=30, what="the job to ask the bucket")
    finally:
        s3.process.wake()
    assert ledger.wait(accepted["id"], timeout_s=90).state == "succeeded"
    assert search_hits(stack, "first")
