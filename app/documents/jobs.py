"""Kinds of job about documents."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.documents.operations import note_end
from app.jobs.definition import Job
from app.jobs.definition_checks import MAX_PRIORITY

STAGES = {"extract": 10, "chunk": 10, "embed": 60, "index": 20}


class IngestDocument(Job, kind="documents.ingest", time_limit_s=3600, stages=STAGES, on_end=note_end):
    """Make a received version the searched one."""

    document_id: int
    version_id: int


class ReprocessDocument(Job, kind="documents.reprocess", time_limit_s=3600, stages=STAGES, on_end=note_end):
    """Like IngestDocument, but also reads a version that changes nothing: the stored content is extracted again."""

    document_id: int
    version_id: int


class BatchDocuments(
    Job, kind="documents.batch", queue="bulk", time_limit_s=24 * 3600, retry_delays=(5.0, 30.0, 120.0)
):
    """Index the lines of a body, each a document; `lines` is their number.

    `collection` applies to lines that name none. `reach` limits the collections that may be written to; None means all.
    """

    blob_key: str
    lines: int
    collection: str | None = None
    reach: tuple[int, ...] | None = None


class ReadScans(
    Job, kind="documents.read_scans", queue="bulk", time_limit_s=3600, retry_delays=(60.0, 600.0), open_to="operator",
    unique_key=lambda job: "scans",
):  # fmt: skip
    """Reprocess the files whose pictures could not be read for lack of tesseract, if this worker has it."""


class ProbeOriginals(
    Job, kind="documents.probe_originals", time_limit_s=30, max_tries=1, retry_delays=(), priority=MAX_PRIORITY
):
    """Read a blob that another process has written; `millrace doctor` starts it."""

    blob_key: str


class DocumentSelection(BaseModel):
    """Conditions that documents must meet, all of them; at least one condition is required."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str | None = Field(None, max_length=300)
    language: str | None = Field(None, max_length=35)
    country: str | None = Field(None, max_length=64)
    source: str | None = Field(None, max_length=64)
    tags: tuple[str, ...] = Field((), max_length=20)
    indexed: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    collection_ids: tuple[int, ...] | None = None


class DeleteDocuments(
    Job, kind="documents.delete", queue="bulk", time_limit_s=6 * 3600, retry_delays=(5.0, 30.0, 120.0)
):
    """Delete the documents that matched `wanted` at `asked_at`, or take them out of their collection (`keep`).

    `collection_id` is a collection to delete with them.
    """

    wanted: DocumentSelection
    asked_at: datetime
    keep: bool = False
    collection_id: int | None = None
