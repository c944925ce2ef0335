"""Crawl a site with the built-in fetcher: the start page first, then its sitemap, then links in order of discovery."""

from __future__ import annotations

import asyncio

from sqlalchemy.orm import Session

from app.core.db import in_transaction, read
from app.core.errors import (
    Conflict,
    InvalidInput,
    LimitReached,
    NotFound,
    Rejected,
    SandboxCrashed,
    SandboxOutOfMemory,
    Snooze,
    Unavailable,
)
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.documents.accept import quota
from app.documents.accept.accept import About
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.crawls import addresses, crawls, frontier
from app.sources.crawls.frontier import PageAddress
from app.sources.crawls.jobs import Crawl
from app.sources.fetching.fetch_page import content_of
from app.sources.fetching.links import PageInspection, inspect_page
from app.sources.fetching.page_text import PageText, UnreadableType
from app.sources.fetching.polite_fetch import fetch_politely
from app.sources.fetching.robots import RobotsForbidden
from app.sources.fetching.sitemap import SitemapReport, entries
from app.sources.models import CrawlPage, CrawlSession

log = get_logger(__name__)

# If a host asks for a longer pause, its page is tried again later.
MAX_PAUSE_S = 120.0


class NoIndex(Rejected):
    """The page asks not to be indexed."""

    code = "noindex"


class OutOfScope(Rejected):
    """The page redirects to an address that does not belong to the crawl."""

    code = "out_of_scope"


# Pages with these errors are skipped; they do not count as failed.
_SKIPPED = (RobotsForbidden, UnreadableType, NoIndex, OutOfScope)


class SiteCrawl:
    """One run of a crawl. `rules` move to another site if the start page redirects there."""

    def __init__(self, job: Crawl, row: CrawlSession, progress: Progress) -> None:
        self._job, self._progress, self._claim = job, progress, progress.claim
        moved_to = row.extra.get("moved_to")
        self._rules = job.rules().moved_to(moved_to) if moved_to else job.rules()
        self._has_sitemap = job.sitemap == "skip" or bool(row.extra.get("sitemap_read"))

    async def run(self) -> None:
        self._progress.report(stage="fetch", message=self._job.url)
        while (page := await in_transaction(frontier.next_page, self._claim)) is not None:
            counts = await read(frontier.count, self._claim.id)
            self._progress.report(counts.done, min(counts.total, self._job.limit), unit="pages", message=page.url)
            await self._visit(page)
            await self._read_sitemap()
        counts = await read(frontier.count, self._claim.id)
        self._progress.report(counts.done, max(counts.total, 1), unit="pages")

    async def _visit(self, page: CrawlPage) -> None:
        claim = self._claim
        try:
            text = await _fetch(page)
            await self._check_scope(page, text.url)
            inspection = await inspect_page(text)
            if inspection.noindex:
                raise NoIndex("the page asks not to be indexed")
        except (Unavailable, Snooze) as error:
            await in_transaction(frontier.record_failure, claim, page.id, error, state="found")
            return
        except (Rejected, InvalidInput, SandboxCrashed, SandboxOutOfMemory) as error:
            state = "skipped" if isinstance(error, _SKIPPED) else "failed"
            await in_transaction(frontier.record_failure, claim, page.id, error, state=state)
            return
        # Before the links of the start page, which a small crawl would prefer otherwise.
        await self._read_sitemap()
        try:
            await in_transaction(self._accept, page, text, inspection)
        except LimitReached as error:  # neither the page nor the crawl is the cause
            await in_transaction(frontier.uncount_try, claim, page.id)
            raise Snooze(error.retry_after_s, error.message, code=error.code) from error
        except (Conflict, InvalidInput, NotFound) as error:
            await in_transaction(frontier.record_failure, claim, page.id, error, state="failed")

    async def _check_scope(self, page: CrawlPage, url: str) -> None:
        """Check the address after redirects; the start page moves the crawl to the site it redirects to.

        Raises OutOfScope.
        """
        if page.depth == 0:
            if not self._rules.is_same_site(url):
                self._rules = self._rules.moved_to(url)
                await in_transaction(_record, self._claim, {"moved_to": url})
                log.info("crawl_moved", crawl_id=self._claim.id, url=self._job.url, moved_to=url)
        elif not self._rules.contains(url):
            raise OutOfScope(f"{page.url} redirects to {url}, which does not belong to the crawl")

    def _accept(self, session: Session, page: CrawlPage, text: PageText, inspection: PageInspection) -> None:
        job, canonical = self._job, inspection.canonical
        ends_here = page.depth >= job.max_depth or job.sitemap == "only"
        links = [] if ends_here else [url for url in inspection.links if self._rules.allows(url)]
        # Another site's address cannot be read by this crawl, so the page stays under its own.
        is_here = canonical is not None and self._rules.allows(canonical) and self._rules.contains(canonical)
        quota.within(
            session,
            self._claim.tenant,
            frontier.accept_page,
            self._claim,
            page.id,
            job.about(About(url=page.url)),
            content_of(text, self._claim.id),
            links,
            job.limit,
            PageAddress(addresses.clean(text.url), canonical if is_here else None),
        )

    async def _read_sitemap(self) -> None:
        """Add the sitemap's pages that belong to the crawl, once; none if robots.txt forbids the sitemap."""
        if self._has_sitemap:
            return
        page_urls: list[str] = []
        report = SitemapReport()
        try:
            async for entry in entries(self._rules.start, accepts=self._rules.allows, report=report):
                page_urls.append(entry.url)
                if len(page_urls) >= self._job.limit:
                    break
        except Rejected as error:
            log.info("crawl_without_sitemap", url=self._rules.start, reason=error.message)
        await in_transaction(self._add_sitemap, page_urls, report)
        self._has_sitemap = True

    def _add_sitemap(self, session: Session, page_urls: list[str], report: SitemapReport) -> None:
        frontier.add(session, self._claim, page_urls, 1, self._job.limit)
        _record(session, self._claim, {"sitemap_read": True, "sitemap": report.view()})


def _record(session: Session, claim: Claim, fields: dict[str, object]) -> None:
    """Add fields to what the crawl reports about itself."""
    claims.hold(session, claim)
    row = crawls.get(session, claim.tenant, claim.id)
    row.extra = {**row.extra, **fields}


async def _fetch(page: CrawlPage) -> PageText:
    """Fetch the page; wait here for a pause that its host asks for, since the crawl's other pages need it too."""
    delays = get_settings().crawl_retry_delays
    if page.tries > 1 and delays:
        await asyncio.sleep(delays[min(page.tries - 2, len(delays) - 1)])
    try:
        return await fetch_politely(page.url)
    except Snooze as error:
        if error.retry_after_s > MAX_PAUSE_S:
            raise
        await asyncio.sleep(error.retry_after_s)
        return await fetch_politely(page.url)
