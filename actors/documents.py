"""Actors of documents."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.core.blobs import blobs
from app.documents import bulk
from app.documents.files.originals import probe
from app.documents.ingest import batch, scans
from app.documents.ingest.ingest import ingest
from app.documents.jobs import (
    BatchDocuments,
    DeleteDocuments,
    IngestDocument,
    ProbeOriginals,
    ReadScans,
    ReprocessDocument,
)
from app.jobs.worker.progress import Progress


@job_actor(IngestDocument)
async def ingest_document(job: IngestDocument, progress: Progress) -> dict[str, Any]:
    return await ingest(job.document_id, job.version_id, progress)


@job_actor(ReprocessDocument)
async def reprocess_document(job: ReprocessDocument, progress: Progress) -> dict[str, Any]:
    return await ingest(job.document_id, job.version_id, progress, force=True)


@job_actor(BatchDocuments)
async def batch_documents(job: BatchDocuments, progress: Progress) -> dict[str, Any]:
    return await batch.index_batch(job, progress)


@job_actor(DeleteDocuments)
async def delete_documents(job: DeleteDocuments, progress: Progress) -> dict[str, Any]:
    return await bulk.delete_documents(job, progress)


@job_actor(ReadScans)
async def read_scans(job: ReadScans, progress: Progress) -> dict[str, Any]:
    return await scans.read_scans(progress)


@job_actor(ProbeOriginals)
async def probe_originals(job: ProbeOriginals, progress: Progress) -> dict[str, Any]:
    return await probe(blobs(), job.blob_key)
