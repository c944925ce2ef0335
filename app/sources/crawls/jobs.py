"""Job kinds of crawls, and the steps at the end of a crawl."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from app.documents.accept.accept import About
from app.jobs.definition import Job
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from app.sources.crawls import crawls
from app.sources.crawls.rules import CrawlRules

MAX_PAGES = 10_000
Pattern = Annotated[str, Field(min_length=1, max_length=300)]


class StopCrawl(Job, kind="sources.stop_crawl", queue="fetch", time_limit_s=120):
    """Stop a crawl at Firecrawl whose job has ended."""

    remote_id: str


def _close_crawl(session: Session, job: JobRow) -> None:
    """End the crawl with its job and stop its run at Firecrawl."""
    row = crawls.close(session, job)
    if row is not None and job.state != "succeeded" and row.remote_id and "remote_status" not in row.extra:
        enqueue(session, StopCrawl(remote_id=row.remote_id), tenant=job.tenant, request_id=job.request_id)


class CheckCrawls(
    Job,
    kind="sources.check_crawls",
    queue="fetch",
    time_limit_s=3600,
    retry_delays=(30.0, 120.0),
    open_to="write",
    unique_key=lambda job: "check",
):
    """Request the status of crawls whose events did not arrive, and missed pages of ended ones, from Firecrawl."""


class Crawl(
    Job,
    kind="sources.crawl",
    queue="fetch",
    time_limit_s=86_400,
    retry_delays=(5.0, 30.0, 120.0, 600.0, 1800.0),
    stages={"fetch": 80, "children": 20},
    on_end=_close_crawl,
):
    """Find a site's pages and index each in a child job. `engine`: auto uses Firecrawl if one is set up."""

    url: str
    max_depth: int = Field(3, ge=0, le=20)
    limit: int = Field(100, ge=1, le=MAX_PAGES)
    include: tuple[Pattern, ...] = Field((), max_length=50)
    exclude: tuple[Pattern, ...] = Field((), max_length=50)
    sitemap: Literal["include", "only", "skip"] = "include"
    subdomains: bool = False
    engine: Literal["auto", "builtin", "firecrawl"] = "auto"
    tags: tuple[str, ...] = ()
    collection: str | None = None

    def rules(self) -> CrawlRules:
        return CrawlRules(self.url, self.include, self.exclude, self.subdomains)

    def about(self, page: About) -> About:
        """Return the page's fields with the crawl's tags, collection and source."""
        return replace(page, tags=self.tags, collection=self.collection, source="crawl")
