"""Many documents in one request: a JSON object a line, indexed by one job, with an outcome for each line."""

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
from app.api.http.collection_access import reachable_collections, target_collection
from app.api.http.idempotency import Answer, IdempotentRequest, KeyHeader
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.documents import BatchJob
from app.core.blobs import blobs
from app.core.db import read
from app.core.errors import NotFound, Unsupported
from app.documents.ingest import batch
from app.documents.jobs import BatchDocuments
from app.documents.models import Batch
from app.jobs.ledger import views
from app.jobs.ledger.enqueue import enqueue
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

PATH = "/api/documents:batch"
TYPES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
EXAMPLE = (
    '{"external_id": "faq-1", "title": "Billing", "markdown": "# Billing\\n\\nInvoices are sent monthly."}\n'
    '{"external_id": "faq-2", "title": "Keys", "text": "Keys are rotated once a year."}\n'
)
BODY = {"requestBody": {"required": True, "content": {TYPES[0]: {"schema": {"type": "string"}, "example": EXAMPLE}}}}
OUTCOMES = {
    "description": "An outcome a line: line, status (indexed, unchanged, failed), document_id, version_id, error.",
    "content": {TYPES[0]: {"schema": {"type": "string"}}},
}


@router.post(
    "/documents:batch",
    summary="Add many documents, a JSON object a line",
    status_code=202,
    openapi_extra=BODY,
    responses={
        202: documented(BatchJob, "The job. `Location` has its address."),
        200: documented(BatchJob, "The job, which has ended."),
        415: {"description": f"The content type is not {TYPES[0]}."},
    },
)
async def add_documents(
    request: Request,
    caller: CollectionCaller,
    key: KeyHeader,
    collection: Annotated[str | None, Query(max_length=100, description="For lines without a collection.")] = None,
) -> Response:
    """Each line is a body of `POST /api/documents` with content. One job indexes all; an invalid line fails alone."""
    if request.headers.get("content-type", "").split(";")[0].strip() not in TYPES:
        raise Unsupported(f"Content-Type must be {TYPES[0]}, with one JSON object a line")
    into = target_collection(caller, collection)
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        path, digest = Path(folder) / "batch", hashlib.sha256(f"{PATH}\n{into}\n".encode())
        with path.open("wb") as file:
            async for part in request.stream():
                digest.update(part)
                await asyncio.to_thread(file.write, part)
        lines = await asyncio.to_thread(batch.count_lines, path)
        blob = await blobs().put_file(path)

    def work(session: Session) -> Answer:
        within = reachable_collections(session, caller, scopes.WRITE)
        job = BatchDocuments(blob_key=blob.key, lines=lines, collection=into, reach=within)
        row = enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id)
        session.add(Batch(job_id=row.id, blob_key=blob.key))
        return answer_of(row, {"lines": lines})

    return await answered(request, caller.tenant, await IdempotentRequest(key, digest.hexdigest()).run(caller, work))


@router.get(
    "/documents:batch/{job_id}",
    summary="Get the outcome of each line of a batch",
    response_class=StreamingResponse,
    responses={200: OUTCOMES},
)
async def get_batch_outcomes(caller: CollectionCaller, job_id: str) -> Response:
    """Returns the outcomes of the finished lines, in the order of the lines."""
    await read(_check_batch, caller.tenant, job_id)
    return StreamingResponse(batch.outcomes(job_id), media_type=TYPES[0])


def _check_batch(session: Session, tenant: str, job_id: str) -> None:
    if views.get(session, tenant, job_id).kind != BatchDocuments.kind:
        raise NotFound(f"Job {job_id} is not a batch of documents", code="job_not_found")
