"""Many documents by one job: each line is indexed once despite interruptions, and its outcome is recorded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.blobs import blobs
from app.core.errors import Cancelled, InvalidInput, Stale
from app.documents.files import originals
from app.documents.ingest import batch, ingest
from app.documents.jobs import BatchDocuments
from app.documents.models import Batch, BatchLine, Document
from app.jobs.ledger import commands
from app.jobs.ledger.ends import free
from app.jobs.ledger.enqueue import enqueue
from app.jobs.worker.progress import Progress, ProgressPublisher
from app.search.models import Chunk, IndexChange
from app.tenants import directory
from tests.support.desk import TENANT, Desk


def _lines(*documents: Any) -> bytes:
    return b"".join(
        (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n" for document in documents
    )


def _enqueue_batch(desk: Desk, body: bytes, **more: Any) -> str:
    """The job of a batch, as the api makes it."""
    blob = asyncio.run(blobs().put(body))

    def ask(session: Any) -> str:
        job = BatchDocuments(blob_key=blob.key, lines=body.count(b"\n"), **more)
        row = enqueue(session, job, tenant=TENANT)
        session.add(Batch(job_id=row.id, blob_key=blob.key))
        return str(row.id)

    return desk.db.transaction(ask)


def _run(desk: Desk, job_id: str) -> dict[str, Any]:
    progress = desk.claim(job_id)
    return asyncio.run(batch.index_batch(BatchDocuments.model_validate(progress.claim.payload), progress))


def _outcomes(job_id: str) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        return [json.loads(line) async for line in batch.outcomes(job_id)]

    return asyncio.run(read())


def _count(desk: Desk, table: Any) -> int:
    return desk.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(table))) or 0


def test_every_line_has_an_outcome(desk: Desk) -> None:
    """Good ones are found, a bad one fails alone and says why; a document that comes twice is put once."""
    good = {"external_id": "a", "markdown": "# Mills\n\nThe water mill.", "tags": ["x"]}
    body = _lines(
        good,
        {"external_id": "b", "text": "The wind mill.", "title": "Wind"},
        b"{not json",
        {"text": 7},
        {"url": "https://example.com/only"},
        {"markdown": "a", "text": "b"},
        {"text": "  "},
        {"url": "", "text": "x"},
        b"",
        {"url": "https://example.com/page", "html": "<html><body><main><p>The heron waits.</p></main></body></html>"},
        good,
        b"[]",
    )
    job_id = _enqueue_batch(desk, body)
    counts = _run(desk, job_id)
    assert counts == {"lines": 11, "indexed": 3, "unchanged": 1, "failed": 7}
    ends = _outcomes(job_id)
    assert [outcome["line"] for outcome in ends] == list(range(1, 12))
    assert [outcome["status"] for outcome in ends].count("indexed") == 3
    codes = [outcome["error"]["code"] for outcome in ends if outcome["error"]]
    assert codes == [
        "line_no_json",
        "line_invalid",
        "no_body",
        "more_than_one_body",
        "empty_document",
        "invalid_input",
        "line_invalid",
    ]
    for word in ("water", "wind", "heron"):
        hits = desk.find(word, mode="keyword")["results"]
        assert len(hits) == 1 and hits[0]["document_id"] in {outcome["document_id"] for outcome in ends}
    assert desk.find("heron", mode="keyword")["results"][0]["url"] == "https://example.com/page"
    assert ends[0]["document_id"] == ends[9]["document_id"]


def test_the_same_batch_again_changes_nothing(desk: Desk) -> None:
    body = _lines(*({"external_id": str(n), "text": f"The mill number{n}."} for n in range(120)))
    assert _run(desk, _enqueue_batch(desk, body))["indexed"] == 120
    changes = _count(desk, IndexChange)
    assert _run(desk, _enqueue_batch(desk, body)) == {"lines": 120, "indexed": 0, "unchanged": 120, "failed": 0}
    assert _count(desk, IndexChange) == changes
    assert desk.find("number77", mode="keyword")["total"] == 1


def test_interrupted_batch_resumes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first transactions the worker is gone: its late twin writes nothing, the next one the rest, once."""
    monkeypatch.setattr(batch, "LINES_AT_ONCE", 10)
    body = _lines(*({"text": f"The mill number{n}."} for n in range(35)))
    job_id = _enqueue_batch(desk, body)
    progress = desk.claim(job_id)
    job = BatchDocuments.model_validate(progress.claim.payload)

    class Interrupted(Exception):
        """The process ends here."""

    report_progress = progress.report

    def report(done: float | None = None, *rest: Any, **more: Any) -> None:
        report_progress(done, *rest, **more)
        if done and done >= 20:
            raise Interrupted

    monkeypatch.setattr(progress, "report", report)
    with pytest.raises(Interrupted):
        asyncio.run(batch.index_batch(job, progress))
    assert _count(desk, Document) == _count(desk, BatchLine) == 20
    desk.db.transaction(free, desk.worker_id, "gone")
    late = Progress(progress.claim, ProgressPublisher(lambda claim, snapshot: None))
    with pytest.raises(Stale):
        asyncio.run(batch.index_batch(job, late))
    assert _run(desk, job_id) == {"lines": 35, "indexed": 35, "unchanged": 0, "failed": 0}
    assert _count(desk, Document) == _count(desk, BatchLine) == _count(desk, Chunk) == 35


def test_cancelled_batch_indexes_no_further_line(desk: Desk) -> None:
    job_id = _enqueue_batch(desk, _lines({"text": "one"}, {"text": "two"}))
    progress = desk.claim(job_id)
    desk.db.transaction(commands.cancel, TENANT, job_id)
    with pytest.raises(Cancelled):
        asyncio.run(batch.index_batch(BatchDocuments.model_validate(progress.claim.payload), progress))
    assert _count(desk, Document) == 0 and _outcomes(job_id) == []


def test_line_over_quota_fails_alone(desk: Desk) -> None:
    desk.db.transaction(directory.change, TENANT, {"max_documents": 2})
    job_id = _enqueue_batch(desk, _lines(*({"text": f"number{n}"} for n in range(4))))
    assert _run(desk, job_id) == {"lines": 4, "indexed": 2, "unchanged": 0, "failed": 2}
    assert [outcome["error"] and outcome["error"]["code"] for outcome in _outcomes(job_id)] == [
        None, None, "quota_documents", "quota_documents"
    ]  # fmt: skip


def test_page_that_kills_its_sandbox_fails_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "EXTRACT_LIMIT_S", 0.2)
    job_id = _enqueue_batch(desk, _lines({"html": "<p>the mill " * 100_000}, {"text": "the heron"}))
    assert _run(desk, job_id) == {"lines": 2, "indexed": 1, "unchanged": 0, "failed": 1}
    assert _outcomes(job_id)[0]["error"]["code"] == "time_limit"


def test_lines_are_counted_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"\n{}\n  \n{}")
    assert batch.count_lines(path) == 2
    path.write_bytes(b"\n \n")
    with pytest.raises(InvalidInput):
        batch.count_lines(path)
    monkeypatch.setattr(batch, "MAX_LINE_BYTES", 10)
    path.write_bytes(b"x" * 25 + b"\n{}\n" + b"y" * 11)
    assert batch.count_lines(path) == 3
    assert batch.parse_line(1, b"x" * 11, None).error is not None


def test_body_is_kept_while_its_job_may_run_again(desk: Desk) -> None:
    """Not swept while its job is open or may be tried again."""
    job_id = _enqueue_batch(desk, _lines({"text": "one"}))
    key = desk.db.read(lambda session: session.scalars(sa.select(Batch.blob_key)).one())
    assert desk.db.read(originals._named, [key]) == {key}
    progress = desk.claim(job_id)
    desk._finish(progress.claim, "succeeded", result={})
    assert desk.db.read(originals._named, [key]) == set()
