"""Kinds of job about crawls, and what a crawl's end leaves behind."""

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
    """Have Firecrawl stop a crawl that nobody waits for any more."""

    remote_id: str


def _ended(session: Session, job: JobRow) -> None:
    """The crawl ends with its job; what Firecrawl still does for it is stopped."""
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
    """Ask Firecrawl after crawls whose events did not come, and after pages of those that have ended."""


class Crawl(
    Job,
    kind="sources.crawl",
    queue="fetch",
    time_limit_s=86_400,
    retry_delays=(5.0, 30.0, 120.0, 600.0, 1800.0),
    stages={"fetch": 80, "children": 20},
    on_end=_ended,
):
    """Find a site's pages and index each by a child. `engine`: auto takes Firecrawl where one is set up."""

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

    def about(self, found: About) -> About:
        """What the crawl says of each of its pages, beside what the page says."""
        return replace(found, tags=self.tags, collection=self.collection, source="crawl")
