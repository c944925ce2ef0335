"""Answers about crawls, scraped pages, watched pages and received webhooks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.api.models.base import JsonObject, ListPage, Number, ResponseModel, Timestamp
from app.api.models.jobs import AcceptedJob


class CrawlTiming(ResponseModel):
    """Milliseconds spent in each step, of all pages."""

    chunking_ms: float
    embedding_ms: float
    qdrant_ms: float
    bm25_ms: float


class CrawlPageMetric(ResponseModel):
    """The indexing of one page of a crawl."""

    url: str | None
    operation_type: str
    operation_name: str
    duration_ms: float
    success: bool | None = Field(..., description="Null while the page waits.")
    error_message: str | None
    timestamp: Timestamp | None


class CrawlSummary(ResponseModel):
    """A crawl and the counts of its pages, in the shape of the old service."""

    crawl_id: str
    crawl_url: str | None
    operation: str
    status: str
    success: bool | None
    started_at: Timestamp
    completed_at: Timestamp | None
    duration_ms: float | None
    e2e_duration_ms: float | None = Field(..., description="From the request to the end.")
    total_pages: int
    pages_indexed: int
    pages_failed: int
    aggregate_timing: CrawlTiming
    error_message: str | None
    extra_metadata: JsonObject


class CrawlsPage(ListPage):
    """A page of crawls."""

    data: list[CrawlSummary]


class CrawlDetail(CrawlSummary):
    """A crawl, with its pages where the request asks for them."""

    per_page_metrics: list[CrawlPageMetric] = []


class CrawlJob(AcceptedJob):
    """The job of a crawl."""

    crawl_id: str = Field(..., description="Equal to the id of the job.")


class SavedUris(ResponseModel):
    """Names of the stored forms of a page."""

    raw: str | None
    cleaned: str | None
    extracted: str | None


class ScrapeLengths(ResponseModel):
    """Lengths in characters."""

    raw_length: int = Field(..., alias="rawLength")
    cleaned_length: int | None = Field(..., alias="cleanedLength")
    extracted_length: int | None = Field(..., alias="extractedLength")
    was_truncated: bool = Field(..., alias="wasTruncated")


class ScrapedContent(ResponseModel):
    """A scraped page."""

    url: str
    source: str
    timestamp: Timestamp
    cached: bool
    cache_age: int | None = Field(..., alias="cacheAge", description="Milliseconds.")
    content: str | None
    content_type: str | None = Field(..., alias="contentType")
    screenshot: str | None = Field(..., description="Base64, or the address of the image.")
    screenshot_format: str | None = Field(..., alias="screenshotFormat")
    saved_uris: SavedUris | None = Field(..., alias="savedUris")
    metadata: ScrapeLengths
    message: str | None


class ScrapeBatch(ResponseModel):
    """A batch of pages at Firecrawl."""

    job_id: str = Field(..., alias="jobId")
    status: str
    total: int | None
    completed: int | None
    credits_used: int | None = Field(..., alias="creditsUsed")
    expires_at: str | None = Field(..., alias="expiresAt")
    urls: int | None
    message: str


class ScrapeBatchError(ResponseModel):
    """A page of a batch that failed."""

    url: str
    error: str
    timestamp: str


class ScrapeBatchErrors(ResponseModel):
    """The failed pages of a batch."""

    job_id: str = Field(..., alias="jobId")
    errors: list[ScrapeBatchError]
    message: str


class ScrapeFault(ResponseModel):
    """The reason why a page cannot be scraped."""

    message: str
    code: str
    url: str | None


class ScrapeAnswer(ResponseModel):
    """The outcome of a scrape command; either `data` or `error` is null."""

    success: bool
    command: Literal["start", "status", "cancel", "errors"]
    data: ScrapedContent | ScrapeBatch | ScrapeBatchErrors | None
    error: ScrapeFault | None


class WatchSummary(ResponseModel):
    """A page and its watch at changedetection.io."""

    document_id: Number
    url: str
    state: str
    watch_id: str | None
    is_ours: bool = Field(..., description="True if Millrace created the watch.")
    error: str | None
    created_at: Timestamp
    updated_at: Timestamp


class WatchPage(ListPage):
    """A page of watches."""

    data: list[WatchSummary]


class WatchJob(AcceptedJob):
    """The job that creates or removes a watch."""

    watch: WatchSummary


class WatchTemplate(ResponseModel):
    """Fields of a watch, as the API of changedetection.io takes them."""

    notification_urls: list[str]
    notification_body: str
    notification_format: str


class FailedPage(ResponseModel):
    """A page that could not be indexed, and the reason."""

    url: str | None
    error: str


class QueuedPages(ResponseModel):
    """The jobs that an event started."""

    status: Literal["queued"]
    queued_jobs: int
    job_ids: list[str]
    failed_documents: list[FailedPage] = []


class NoPages(ResponseModel):
    """An event without pages."""

    status: Literal["no_documents"]
    queued_jobs: int
    job_ids: list[str]


class AcknowledgedEvent(ResponseModel):
    """An event that needs no job."""

    status: Literal["acknowledged"]
    event_type: str


class AcknowledgedFailure(ResponseModel):
    """An event that reports a failure."""

    status: Literal["acknowledged"]
    message: str
    event_id: str


class QueuedChange(ResponseModel):
    """The job that reads a changed page again."""

    status: Literal["queued"]
    job_id: str
    change_event_id: int
    url: str


class AcknowledgedChange(ResponseModel):
    """A change of a page that is no longer watched."""

    status: Literal["acknowledged"]
    change_event_id: int
    url: str


EventReceipt = QueuedPages | NoPages | AcknowledgedEvent | AcknowledgedFailure
ChangeReceipt = QueuedChange | AcknowledgedChange | AcknowledgedEvent


class DeliveryReceipt(ResponseModel):
    """The answer that the sender of a delivery got."""

    status: int = Field(..., description="The HTTP status.")
    body: QueuedPages | NoPages | AcknowledgedEvent | AcknowledgedFailure | QueuedChange | AcknowledgedChange


class DeliverySummary(ResponseModel):
    """A received webhook."""

    id: Number
    source: str
    event_type: str
    crawl_id: str | None
    outcome: Literal["accepted", "acknowledged"]
    answer: DeliveryReceipt
    jobs: int = Field(..., description="Number of jobs that it started.")
    failures: list[FailedPage]
    repeats: int = Field(..., description="Number of times that the sender delivered it again.")
    size_bytes: int
    request_id: str | None
    received_at: Timestamp
    replayed_at: Timestamp | None


class DeliveryPage(ListPage):
    """A page of deliveries."""

    data: list[DeliverySummary]


class DeliveryDetail(DeliverySummary):
    """A received webhook with its body."""

    body: str | None = Field(..., description="Null if the body is longer than 64 KiB or is not text.")


class DeliveryReplay(ResponseModel):
    """The outcome of a replayed delivery."""

    status: int = Field(..., description="The HTTP status.")
    answer: QueuedPages | NoPages | AcknowledgedEvent | AcknowledgedFailure | QueuedChange | AcknowledgedChange
