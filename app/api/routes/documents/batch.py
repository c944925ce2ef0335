"""Many documents in one request: lines in, one job, and what became of each line out."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from app.api.http.auth import CollectionCaller
from app.api.http.idempotency import Once, OnceKey
from app.api.http.responses import answer_of, answered
from app.api.routes.documents.collections import reach, target
from app.core.blobs import blobs
from app.core.db import read
from app.core.errors import NotFound, Unsupported
from app.documents.ingest import batch
from app.documents.jobs import BatchDocuments
from app.documents.models import Batch
from app.jobs.idempotency import Answer
from app.jobs.ledger import views
from app.jobs.ledger.enqueue import enqueue
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

PATH = "/api/documents:batch"
TYPES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
BODY = {"requestBody": {"required": True, "content": {TYPES[0]: {"schema": {"type": "string"}}}}}


@router.post(
    "/documents:batch", summary="Give many documents, a JSON object a line", status_code=202, openapi_extra=BODY
)
async def add_batch(
    request: Request,
    caller: CollectionCaller,
    key: OnceKey,
    collection: Annotated[str | None, Query(max_length=100, description="For lines that name none.")] = None,
) -> Response:
    """Each line as `POST /api/documents` takes it, with a body. One job indexes them; a bad line fails alone."""
    if request.headers.get("content-type", "").split(";")[0].strip() not in TYPES:
        raise Unsupported(f"send {TYPES[0]}: one JSON object a line")
    into = target(caller, collection)
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        path, digest = Path(folder) / "batch", hashlib.sha256(f"{PATH}\n{into}\n".encode())
        with path.open("wb") as file:
            async for part in request.stream():
                digest.update(part)
                await asyncio.to_thread(file.write, part)
        lines = await asyncio.to_thread(batch.count_lines, path)
        blob = await blobs().put_file(path)

    def work(session: Session) -> Answer:
        within = reach(session, caller, scopes.WRITE)
        job = BatchDocuments(blob_key=blob.key, lines=lines, collection=into, reach=within)
        row = enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id)
        session.add(Batch(job_id=row.id, blob_key=blob.key))
        return answer_of(row, {"lines": lines})

    return await answered(request, caller.tenant, await Once(key, digest.hexdigest()).run(caller.tenant, work))


@router.get(
    "/documents:batch/{job_id}", summary="What became of each line of a batch", response_class=StreamingResponse
)
async def batch_outcomes(caller: CollectionCaller, job_id: str) -> Response:
    """A JSON object a line, in their order, of those that are done: line, status (indexed, unchanged, failed),
    document_id, version_id, error."""
    await read(_batch, caller.tenant, job_id)
    return StreamingResponse(batch.outcomes(job_id), media_type=TYPES[0])


def _batch(session: Session, tenant: str, job_id: str) -> None:
    if views.get(session, tenant, job_id).kind != BatchDocuments.kind:
        raise NotFound(f"Job {job_id} is no batch", code="job_not_found")
