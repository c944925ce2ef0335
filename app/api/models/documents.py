"""Answers about documents, their versions and the requests that add or delete them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.api.models.base import JsonObject, ListPage, Number, ResponseModel, Timestamp
from app.api.models.jobs import AcceptedJob, JobSummary

DocumentState = Literal["received", "extracted", "chunked", "embedded", "indexed", "failed"]


class DocumentSummary(ResponseModel):
    """A document, as lists show it."""

    id: Number
    external_id: str | None = Field(..., description="The caller's own key.")
    url: str | None
    canonical_url: str | None
    domain: str | None
    title: str | None
    description: str | None
    language: str | None
    country: str | None
    is_mobile: bool
    tags: list[str]
    metadata: JsonObject
    no_text: str | None = Field(..., description="Why a file has no text: ocr_missing or empty; null with text.")
    source: str
    collection: str | None = Field(..., description="The name of its collection.")
    content_id: Number | None = Field(..., description="The version that searches use; null until one is indexed.")
    chunks: int
    fetched_at: Timestamp | None
    indexed_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class DocumentPage(ListPage):
    """A page of documents."""

    data: list[DocumentSummary]


class StoredVersion(ResponseModel):
    """A version of a document, next to the document."""

    id: Number
    state: str
    format: str
    content_hash: str
    status_code: int | None = Field(..., description="The HTTP status of the page.")
    media_type: str | None
    file_name: str | None
    size_bytes: int
    page_count: int | None
    fetched_at: Timestamp | None
    indexed_at: Timestamp | None
    created_at: Timestamp


class DocumentDetail(DocumentSummary):
    """A document with its text, its latest versions and its last job."""

    state: DocumentState = Field(..., description="The progress of the newest content.")
    pages: int | None
    parent_id: Number | None = Field(..., description="The document that contained this one as an attachment.")
    attachments: list[Number]
    text: str | None
    versions: list[StoredVersion] = Field(..., description="The newest first, at most 50.")
    last_job: JobSummary | None


class VersionSummary(StoredVersion):
    """A version of a document, as lists show it."""

    url: str | None
    language: str | None
    crawl_session: str | None
    is_current: bool = Field(..., description="True for the version that searches use.")


class VersionPage(ListPage):
    """A page of versions."""

    data: list[VersionSummary]


class VersionDiff(ResponseModel):
    """The difference between two versions."""

    from_: Number = Field(..., alias="from")
    to: Number
    changed: bool
    added: int = Field(..., description="Number of added lines.")
    removed: int = Field(..., description="Number of removed lines.")
    diff: str = Field(..., description="A unified diff.")


class ChangeSummary(ResponseModel):
    """A reported change of a page, and its outcome."""

    id: Number
    origin: str = Field(..., description="webhook, reconcile or import.")
    state: str
    url: str
    document_id: Number | None
    content_id: Number | None = Field(..., description="The version that the change led to.")
    watch_id: str | None
    history_key: str | None = Field(..., description="The snapshot at changedetection.io.")
    title: str | None
    summary: str | None
    diff_url: str | None
    job_id: str | None
    error: str | None
    confirmed: bool | None = Field(
        ..., description="False if changedetection.io did not confirm the URL: see `unconfirmed` in `metadata`."
    )
    metadata: JsonObject
    detected_at: Timestamp
    received_at: Timestamp
    ended_at: Timestamp | None


class ChangePage(ListPage):
    """A page of changes."""

    data: list[ChangeSummary]


class IndexedPage(AcceptedJob):
    """The job that indexes a page, with the keys of the old service."""

    job_id: str
    status: Literal["queued"]
    message: str


class IndexStepDetails(ResponseModel):
    """Details of a step; each key belongs to one of the steps."""

    outcome: str | None = None
    stages_ms: dict[str, float] = {}
    chunks_embedded: int = 0


class IndexStep(ResponseModel):
    """A step of indexing a page."""

    step: Literal["parse_document", "index_document"]
    duration_ms: float
    status: Literal["success", "failed"]
    details: IndexStepDetails


class IndexTotals(ResponseModel):
    """The result of indexing a page."""

    chunks_indexed: int
    total_tokens: int
    indexed_to_qdrant: bool
    indexed_to_bm25: bool


class IndexReport(ResponseModel):
    """The steps of indexing a page; with the error where it did not succeed."""

    status: Literal["success", "failed", "pending"]
    url: str
    total_duration_ms: float
    job_id: str
    steps: list[IndexStep]
    summary: IndexTotals
    error: str = ""
    error_type: str = ""


class BatchJob(AcceptedJob):
    """The job that indexes a batch of documents."""

    lines: int = Field(..., description="Number of documents in the batch.")


class UploadJob(AcceptedJob):
    """The job that indexes an uploaded file."""

    file_name: str


class UploadedDocument(ResponseModel):
    """A document of an uploaded file."""

    file_name: str
    document_id: Number
    duplicate: bool = Field(..., description="True if the file was already stored; there is no job then.")
    job: JobSummary | None


class RefusedUpload(ResponseModel):
    """A file that was refused, and the reason."""

    file_name: str
    code: str
    detail: str


class UploadResult(ResponseModel):
    """The outcome of an upload of several files."""

    data: list[UploadedDocument]
    errors: list[RefusedUpload]


class DeletePreview(ResponseModel):
    """The documents that a filter selects."""

    matched: int
    sample: list[DocumentSummary] = Field(..., description="At most 10 of them.")


class ContentItem(ResponseModel):
    """A page as received, in the shape of the old service."""

    id: int = Field(..., description="The id of the version.")
    url: str | None
    source_url: str | None
    markdown: str | None
    html: str | None
    links: list[str] | JsonObject | None
    screenshot: str | None
    metadata: JsonObject
    content_source: str | None
    scraped_at: Timestamp | None
    created_at: Timestamp
    crawl_session_id: str | None
