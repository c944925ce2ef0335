"""Index many documents from one body of lines: read, chunk and embed them together, a group per transaction.

The outcome of a line is written with its document, so an interrupted job continues after the last written line and
indexes no line twice.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.core.blobs import blobs
from app.core.db import in_transaction, read
from app.core.errors import (
    AppError,
    Conflict,
    InvalidInput,
    LimitReached,
    SandboxCrashed,
    SandboxOutOfMemory,
    TimeLimitExceeded,
)
from app.documents.accept.accept import About, Content, find_or_make, known_id, make_version
from app.documents.accept.quota import within
from app.documents.accept.request import DocumentRequest
from app.documents.ingest.draft import Draft
from app.documents.ingest.ingest import cut, extract_body, make_current
from app.documents.jobs import BatchDocuments
from app.documents.models import BatchLine, Document, DocumentVersion
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.search.embedders import embedder
from app.search.index.chunk_vectors import make_vectors

LINES_AT_ONCE = 50
MAX_LINE_BYTES = 10 * 1024 * 1024
ROWS_AT_ONCE = 1000


@dataclass(slots=True)
class Line:
    """One line while it is processed: its content and draft, or its error."""

    number: int
    about: About | None = None
    content: Content | None = None
    draft: Draft = field(default_factory=Draft)
    error: AppError | None = None

    @property
    def is_good(self) -> bool:
        return self.error is None


async def index_batch(job: BatchDocuments, progress: Progress) -> dict[str, Any]:
    """Return {lines, indexed, unchanged, failed}; `outcomes` yields the result of each line."""
    await asyncio.to_thread(embedder)  # loaded here, outside of any transaction
    done = await read(last_line, progress.claim.id)
    progress.report(done, job.lines, unit="lines")
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        path = Path(folder) / "batch"
        await blobs().fetch(job.blob_key, path)
        with path.open("rb") as file:
            numbered = ((number, line) for number, line in enumerate(_lines(file), start=1) if number > done)
            while some := await asyncio.to_thread(lambda: list(islice(numbered, LINES_AT_ONCE))):
                lines = [parse_line(number, text, job.collection) for number, text in some]
                await _make(progress.claim.tenant, lines)
                await _write(progress.claim, job, lines)
                progress.report(lines[-1].number, max(job.lines, lines[-1].number), unit="lines")
    return await read(totals, progress.claim.id)


def count_lines(path: Path) -> int:
    """Count the documents in a body. Raises InvalidInput for an empty body."""
    with path.open("rb") as file:
        count = sum(1 for _ in _lines(file))
    if count == 0:
        raise InvalidInput("the batch is empty: send one JSON object per line, each a document", code="empty_batch")
    return count


def _lines(file: Any) -> Iterator[bytes]:
    """Yield the lines that are not blank; of a line that is too long, only as much as proves it."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            while rest := file.readline(MAX_LINE_BYTES):
                if rest.endswith(b"\n"):
                    break
        if line.strip():
            yield line


def parse_line(number: int, text: bytes, collection: str | None) -> Line:
    """Parse a line; sets its error if it is not a valid document."""
    line = Line(number)
    try:
        if len(text) > MAX_LINE_BYTES:
            raise InvalidInput(f"the line has more than {MAX_LINE_BYTES:,} bytes", code="line_too_long")
        request = DocumentRequest.model_validate(json.loads(text))
        about, line.content = request.about(), request.content()
        if line.content is None:
            raise InvalidInput("a line needs markdown, text or html; a batch does not fetch pages", code="no_body")
        line.about = about if about.collection is not None or collection is None else _put_into(about, collection)
        line.draft.fields = line.about.fields()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        line.error = InvalidInput(f"{where}: {first['msg']}", code="line_invalid")
    except (ValueError, RecursionError) as error:
        line.error = InvalidInput(f"the line is not JSON: {error}", code="line_no_json")
    except AppError as error:
        line.error = error
    return line


def _put_into(about: About, collection: str) -> About:
    return replace(about, collection=collection)


async def _make(tenant: str, lines: Sequence[Line]) -> None:
    """Make text, chunks and vectors of all lines; identical chunks are embedded once."""
    for line in lines:
        if line.about is None or line.content is None or not line.is_good:
            continue
        try:
            await extract_body(make_version(0, line.about, line.content, tenant=""), line.draft)
            await asyncio.to_thread(cut, line.draft)
        except (InvalidInput, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded) as error:
            line.error = error  # a page that crashes its sandbox process fails only its own line
    text_by_hash = {chunk.text_hash: chunk.searched for line in lines if line.is_good for chunk in line.draft.chunks}
    vectors = await make_vectors(await read(_known_ids, tenant, lines), text_by_hash)
    for line in lines:
        line.draft.vectors = vectors


def _known_ids(session: Session, tenant: str, lines: Sequence[Line]) -> list[int]:
    """Return the ids of the lines' documents that exist already."""
    ids = [known_id(session, line.about, tenant=tenant) for line in lines if line.about is not None and line.is_good]
    return [document_id for document_id in ids if document_id is not None]


async def _write(claim: Claim, job: BatchDocuments, lines: Sequence[Line]) -> None:
    """Write all lines in one transaction; if a quota has no room for all, write them one by one while there is room."""
    try:
        await in_transaction(_index, claim, job, lines)
    except (Conflict, LimitReached):
        for line in lines:
            try:
                await in_transaction(_index, claim, job, [line])
            except (Conflict, LimitReached) as error:
                line.error = error
                await in_transaction(_index, claim, job, [line])


def _index(session: Session, claim: Claim, job: BatchDocuments, lines: Sequence[Line]) -> None:
    claims.hold(session, claim)
    within(session, claim.tenant, _index_all, claim, job, lines)


def _index_all(session: Session, claim: Claim, job: BatchDocuments, lines: Sequence[Line]) -> None:
    """Lock every document first, then index all of them: the counter of changes must be updated last."""
    documents: list[tuple[Line, Document, DocumentVersion | None]] = []
    refused: dict[int, AppError] = {}
    for line in lines:
        if line.about is None or line.content is None or not line.is_good:
            continue
        try:
            with session.begin_nested():
                document_id = find_or_make(session, line.about, tenant=claim.tenant, reach=job.reach)
                document = session.get_one(Document, document_id)
                version = make_version(document_id, line.about, line.content, tenant=claim.tenant)
                documents.append((line, document, None if _says_so(session, document, version) else version))
        except AppError as error:
            refused[line.number] = error
    failed = {line.number: line.error for line in lines if line.error is not None} | refused
    rows = [_outcome(claim, line, "failed", error=failed[line.number]) for line in lines if line.number in failed]
    for line, document, new in documents:
        if new is None or _says_so(session, document, new):  # an earlier line of this group may have the same content
            rows.append(_outcome(claim, line, "unchanged", document))
            continue
        session.add(new)
        session.flush()
        make_current(session, document, new, line.draft)
        rows.append(_outcome(claim, line, "indexed", document))
    session.execute(sa.insert(BatchLine), rows)


def _says_so(session: Session, document: Document, version: DocumentVersion) -> bool:
    """Return True if the document has this content already."""
    current = session.get(DocumentVersion, document.version_id) if document.version_id else None
    return current is not None and (current.content_hash, current.fields) == (version.content_hash, version.fields)


def _outcome(
    claim: Claim, line: Line, status: str, document: Document | None = None, error: AppError | None = None
) -> dict[str, Any]:
    return {
        "job_id": claim.id,
        "line": line.number,
        "status": status,
        "document_id": document.id if document else None,
        "version_id": document.version_id if document else None,
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
    }


def last_line(session: Session, job_id: str) -> int:
    """Return the last line with a written outcome; lines are written in order."""
    return session.scalar(sa.select(sa.func.max(BatchLine.line)).where(BatchLine.job_id == job_id)) or 0


def totals(session: Session, job_id: str) -> dict[str, Any]:
    query = sa.select(BatchLine.status, sa.func.count()).where(BatchLine.job_id == job_id).group_by(BatchLine.status)
    counted = {row.status: row[1] for row in session.execute(query)}
    ends = {name: counted.get(name, 0) for name in ("indexed", "unchanged", "failed")}
    return {"lines": sum(ends.values()), **ends}


async def outcomes(job_id: str) -> AsyncIterator[bytes]:
    """Yield {line, status, document_id, version_id, error} as a JSON line each, in the order of the batch."""
    after = 0
    while rows := await read(_some, job_id, after):
        for row in rows:
            error = {"code": row.error_code, "message": row.error_message} if row.error_code else None
            outcome = {"line": row.line, "status": row.status, "document_id": _digits(row.document_id)}
            outcome |= {"version_id": _digits(row.version_id), "error": error}
            yield json.dumps(outcome).encode() + b"\n"
        after = rows[-1].line


def _digits(value: int | None) -> str | None:
    return None if value is None else str(value)


def _some(session: Session, job_id: str, after: int) -> Sequence[BatchLine]:
    query = sa.select(BatchLine).where(BatchLine.job_id == job_id, BatchLine.line > after)
    return session.scalars(query.order_by(BatchLine.line).limit(ROWS_AT_ONCE)).all()
