"""Answers of Firecrawl, passed on unchanged.

Firecrawl decides which keys an answer has, so every field may be absent and other keys may follow.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from app.api.models.base import JsonObject, ResponseModel


class FirecrawlAnswer(ResponseModel):
    """Base of the answers of Firecrawl."""

    model_config = ConfigDict(extra="allow")

    success: bool = True
    error: str | None = Field(None, description="The reason, if `success` is false.")


class FirecrawlError(FirecrawlAnswer):
    """An error of Firecrawl."""

    code: str | None = None
    details: Any = None


class RecordedRun(ResponseModel):
    """The record that Millrace keeps of a run at Firecrawl."""

    session_created: bool
    auto_index: bool
    operation_type: str


class FirecrawlDocument(ResponseModel):
    """A page; it has the formats that the request asked for."""

    model_config = ConfigDict(extra="allow")

    markdown: str | None = None
    html: str | None = None
    raw_html: str | None = Field(None, alias="rawHtml")
    links: list[str] | None = None
    screenshot: str | None = None
    summary: str | None = None
    metadata: JsonObject = {}
    warning: str | None = None


class FirecrawlRecorded(FirecrawlAnswer):
    """An answer to a request that starts a run; Millrace adds `_webhook_meta` if it recorded the run."""

    id: str | None = None
    webhook_meta: RecordedRun | None = Field(None, alias="_webhook_meta")


class FirecrawlScrape(FirecrawlRecorded):
    """A scraped page."""

    data: FirecrawlDocument | None = None


class FirecrawlRun(FirecrawlRecorded):
    """A started crawl, batch or extraction."""

    url: str | None = Field(None, description="The address of the run's status.")
    invalid_urls: list[str] | None = Field(None, alias="invalidURLs")


class FirecrawlStatus(FirecrawlAnswer):
    """The status of a crawl or batch, and its pages."""

    status: str | None = Field(None, description="scraping, completed, failed or cancelled.")
    total: int | None = None
    completed: int | None = None
    credits_used: float | None = Field(None, alias="creditsUsed")
    expires_at: str | None = Field(None, alias="expiresAt")
    next: str | None = Field(None, description="The address of the next part.")
    data: list[FirecrawlDocument] = []


class FirecrawlCancelled(FirecrawlAnswer):
    """A cancelled crawl or batch."""

    status: str | None = None
    message: str | None = None


class FirecrawlPageError(ResponseModel):
    """A page that failed."""

    model_config = ConfigDict(extra="allow")

    id: str | None = None
    timestamp: str | None = None
    url: str | None = None
    error: str | None = None


class FirecrawlErrors(FirecrawlAnswer):
    """The failed pages of a crawl or batch."""

    errors: list[FirecrawlPageError] = []
    robots_blocked: list[str] = Field([], alias="robotsBlocked")


class FirecrawlLink(ResponseModel):
    """A URL of a site map."""

    model_config = ConfigDict(extra="allow")

    url: str
    title: str | None = None
    description: str | None = None


class FirecrawlMap(FirecrawlRecorded):
    """The URLs of a site."""

    links: list[FirecrawlLink | str] = []


class FirecrawlSearch(FirecrawlRecorded):
    """The results of a web search, by source."""

    data: Any = None
    credits_used: float | None = Field(None, alias="creditsUsed")
    warning: str | None = None


class FirecrawlExtraction(FirecrawlAnswer):
    """The status and the data of an extraction."""

    status: str | None = None
    data: Any = None
    expires_at: str | None = Field(None, alias="expiresAt")
    tokens_used: float | None = Field(None, alias="tokensUsed")


class FirecrawlCrawls(FirecrawlAnswer):
    """The running crawls."""

    crawls: list[JsonObject] = []


class FirecrawlCrawlParams(FirecrawlAnswer):
    """Crawl options derived from a prompt."""

    data: JsonObject | None = None


class FirecrawlUsage(FirecrawlAnswer):
    """The remaining credits or tokens, or their use in past periods."""

    data: Any = None
    periods: list[JsonObject] = []


class FirecrawlQueueStatus(FirecrawlAnswer):
    """The jobs of the team at Firecrawl."""

    jobs_in_queue: int | None = Field(None, alias="jobsInQueue")
    active_jobs_in_queue: int | None = Field(None, alias="activeJobsInQueue")
    waiting_jobs_in_queue: int | None = Field(None, alias="waitingJobsInQueue")
    max_concurrency: int | None = Field(None, alias="maxConcurrency")
    most_recent_success: str | None = Field(None, alias="mostRecentSuccess")


class FirecrawlConcurrency(FirecrawlAnswer):
    """The number of running jobs, and the limit."""

    concurrency: int | None = None
    max_concurrency: int | None = Field(None, alias="maxConcurrency")
