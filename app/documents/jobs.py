"""Kinds of job about documents."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.documents.operations import note_end
from app.jobs.definition import Job

STAGES = {"extract": 10, "chunk": 10, "embed": 60, "index": 20}


class IngestDocument(Job, kind="documents.ingest", time_limit_s=3600, stages=STAGES, on_end=note_end):
    """Make a received version the one that is searched."""

    document_id: int
    version_id: int


class ReprocessDocument(Job, kind="documents.reprocess", time_limit_s=3600, stages=STAGES, on_end=note_end):
    """The same, also where the version says nothing new: what is known is read again."""

    document_id: int
    version_id: int


class BatchDocuments(
    Job, kind="documents.batch", queue="bulk", time_limit_s=24 * 3600, retry_delays=(5.0, 30.0, 120.0)
):
    """Index the lines of a body, each a document; `lines` is how many it has.

    `collection`: for lines that name none. `reach`: the collections that may be written to; None is all.
    """

    blob_key: str
    lines: int
    collection: str | None = None
    reach: tuple[int, ...] | None = None


class WantedDocuments(BaseModel):
    """Which documents are meant: all that is named must hold, and something must be named."""

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
    """Delete the documents that were `wanted` at `asked_at`, or take them out of their collection (`keep`).

    `collection_id` is the collection that ends with them.
    """

    wanted: WantedDocuments
    asked_at: datetime
    keep: bool = False
    collection_id: int | None = None
