"""Run a crawl: one job finds pages, passes each to a child job that indexes it, and reports progress.

The job occupies no worker while its children index. A cancelled crawl stops at once; indexed pages stay.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.orm import Session

from app.clients import firecrawl
from app.core.db import in_transaction, read
from app.core.errors import Conflict, InvalidInput, LimitReached, NotFound, Rejected, Snooze, Unavailable
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.documents.accept import quota
from app.documents.accept.accept import About
from app.jobs.children.children import AGAIN, ALWAYS, WaitForChildren
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.crawls import crawls, frontier
from app.sources.crawls import remote as crawl_remote
from app.sources.crawls.jobs import Crawl
from app.sources.crawls.rules import CrawlRules
from app.sources.fetching.fetch_page import content_of
from app.sources.fetching.links import inspect_page
from app.sources.fetching.page_text import PageText, UnreadableType
from app.sources.fetching.polite_fetch import fetch_politely
from app.sources.fetching.robots import RobotsForbidden
from app.sources.fetching.sitemap import entries
from app.sources.models import CrawlPage, CrawlSession

log = get_logger(__name__)

# If a host asks for a longer pause, its page is tried again later.
MAX_PAUSE_S = 120.0


class NoIndex(Rejected):
    """The page asks not to be indexed."""

    code = "noindex"


# Pages with these errors are skipped; they do not count as failed.
_SKIPPED = (RobotsForbidden, UnreadableType, NoIndex)


async def crawl(job: Crawl, progress: Progress) -> dict[str, Any]:
    """Return {crawl_id, pages, indexed, failed, skipped}: pages accepted, and their numbers by result."""
    claim = progress.claim
    row = await in_transaction(frontier.begin, claim, job.url)
    if not claim.continues:
        if claim.family_rule == AGAIN:
            await _restart_children(claim)
        remote = job.engine == "firecrawl" or (job.engine == "auto" and firecrawl.is_configured())
        await (crawl_remote.run(job, row, progress) if remote else _run(job, row, progress))
        raise WaitForChildren(ALWAYS)
    failed = row.extra.get("failed")
    if failed:
        raise Rejected(str(failed), code="crawl_failed")
    return await read(_result, claim.id, row)


async def _restart_children(claim: Claim) -> None:
    first = 0
    while count := await in_transaction(frontier.restart_children, claim, first):
        first += count


def _result(session: Session, crawl_id: str, row: CrawlSession) -> dict[str, Any]:
    counts = frontier.count(session, crawl_id)
    shown = crawls.describe(session, row)
    return {
        "crawl_id": crawl_id,
        "pages": counts.taken,
        "indexed": shown["pages_indexed"],
        "failed": shown["pages_failed"],
        "skipped": counts.skipped,
    }


async def _run(job: Crawl, row: CrawlSession, progress: Progress) -> None:
    claim, rules = progress.claim, job.rules()
    progress.report(stage="fetch", message=job.url)
    if job.sitemap != "skip" and not row.extra.get("sitemap_read"):
        await in_transaction(_add_sitemap, claim, await _read_sitemap(job, rules), job.limit)
    while (page := await in_transaction(frontier.next_page, claim)) is not None:
        counts = await read(frontier.count, claim.id)
        progress.report(counts.done, min(counts.total, job.limit), unit="pages", message=page.url)
        await _fetch_and_accept(job, rules, page, progress)
    counts = await read(frontier.count, claim.id)
    progress.report(counts.done, max(counts.total, 1), unit="pages")


async def _read_sitemap(job: Crawl, rules: CrawlRules) -> list[str]:
    """Return the sitemap's URLs that belong to the crawl; empty if robots.txt forbids the sitemap."""
    page_urls: list[str] = []
    try:
        async for entry in entries(job.url):
            if rules.allows(entry.url):
                page_urls.append(entry.url)
            if len(page_urls) >= job.limit:
                break
    except Rejected as error:
        log.info("crawl_without_sitemap", url=job.url, reason=error.message)
    return page_urls


def _add_sitemap(session: Session, claim: Claim, page_urls: list[str], max_pages: int) -> None:
    """Add the sitemap's URLs; done once for each crawl."""
    frontier.add(session, claim, page_urls, 1, max_pages)
    row = crawls.get(session, claim.tenant, claim.id)
    row.extra = {**row.extra, "sitemap_read": True}


async def _fetch_and_accept(job: Crawl, rules: CrawlRules, page: CrawlPage, progress: Progress) -> None:
    claim = progress.claim
    try:
        text = await _fetch(page)
        inspection = await inspect_page(text)
        if inspection.noindex:
            raise NoIndex("the page asks not to be indexed")
    except (Unavailable, Snooze) as error:
        await in_transaction(frontier.record_failure, claim, page.id, error, state="found")
        return
    except (Rejected, InvalidInput) as error:
        state = "skipped" if isinstance(error, _SKIPPED) else "failed"
        await in_transaction(frontier.record_failure, claim, page.id, error, state=state)
        return
    ends_here = page.depth >= job.max_depth or job.sitemap == "only"
    links = [] if ends_here else [url for url in inspection.links if rules.allows(url)]
    try:
        await in_transaction(_accept, claim, job, page, text, links)
    except LimitReached as error:  # neither the page nor the crawl is the cause
        await in_transaction(frontier.uncount_try, claim, page.id)
        raise Snooze(error.retry_after_s, error.message, code=error.code) from error
    except (Conflict, InvalidInput, NotFound) as error:
        await in_transaction(frontier.record_failure, claim, page.id, error, state="failed")


def _accept(session: Session, claim: Claim, job: Crawl, page: CrawlPage, text: PageText, links: list[str]) -> None:
    about = job.about(About(url=page.url))
    quota.within(
        session,
        claim.tenant,
        frontier.accept_page,
        claim,
        page.id,
        about,
        content_of(text, claim.id),
        links,
        job.limit,
    )


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
