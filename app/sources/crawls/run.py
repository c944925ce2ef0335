"""A crawl of ours: one job that finds pages, hands each to a child that indexes it, and tells how far it is.

It holds no worker while its children index. Cancelled, it stops where it is, and what was indexed stays.
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
from app.sources.fetching.page_text import PageText
from app.sources.fetching.polite_fetch import fetch_politely
from app.sources.fetching.sitemap import entries
from app.sources.models import CrawlPage, CrawlSession

log = get_logger(__name__)

# A host that asks for more patience than this is not waited for; its page is tried again later.
MAX_PAUSE_S = 120.0
# Why a page is not for us, which is no fault of the crawl's.
_SKIPPED = {"robots", "media_type", "noindex", "empty_document"}


async def crawl(job: Crawl, progress: Progress) -> dict[str, Any]:
    """{crawl_id, pages, indexed, failed, skipped}: pages whose text came, those that are searched, and the rest."""
    claim = progress.claim
    row = await in_transaction(frontier.begin, claim, job.url)
    if not claim.continues:
        if claim.family_rule == AGAIN:
            await _children_again(claim)
        remote = job.engine == "firecrawl" or (job.engine == "auto" and firecrawl.is_configured())
        await (crawl_remote.run(job, row, progress) if remote else _run(job, row, progress))
        raise WaitForChildren(ALWAYS)
    failed = row.extra.get("failed")
    if failed:
        raise Rejected(str(failed), code="crawl_failed")
    return await read(_result, claim.id, row)


async def _children_again(claim: Claim) -> None:
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
        await in_transaction(_with_sitemap, claim, await _named(job, rules), job.limit)
    while (page := await in_transaction(frontier.next_page, claim)) is not None:
        counts = await read(frontier.count, claim.id)
        progress.report(counts.done, min(counts.total, job.limit), unit="pages", message=page.url)
        await _page(job, rules, page, progress)
    counts = await read(frontier.count, claim.id)
    progress.report(counts.done, max(counts.total, 1), unit="pages")


async def _named(job: Crawl, rules: CrawlRules) -> list[str]:
    """What the sitemap names of this crawl's pages; nothing where robots may not even look."""
    found: list[str] = []
    try:
        async for entry in entries(job.url):
            if rules.takes(entry.url):
                found.append(entry.url)
            if len(found) >= job.limit:
                break
    except Rejected as error:
        log.info("crawl_without_sitemap", url=job.url, reason=error.message)
    return found


def _with_sitemap(session: Session, claim: Claim, found: list[str], most: int) -> None:
    """What the sitemap names, once a crawl."""
    frontier.add(session, claim, found, 1, most)
    row = crawls.get(session, claim.tenant, claim.id)
    row.extra = {**row.extra, "sitemap_read": True}


async def _page(job: Crawl, rules: CrawlRules, page: CrawlPage, progress: Progress) -> None:
    claim = progress.claim
    try:
        found = await _patiently(page)
        links = await inspect_page(found)
        if links.noindex:
            raise Rejected("the page asks not to be indexed", code="noindex")
    except (Unavailable, Snooze) as error:
        await in_transaction(frontier.record_failure, claim, page.id, error, state="found")
        return
    except (Rejected, InvalidInput) as error:
        state = "skipped" if error.code in _SKIPPED else "failed"
        await in_transaction(frontier.record_failure, claim, page.id, error, state=state)
        return
    ends_here = page.depth >= job.max_depth or job.sitemap == "only"
    wanted = [] if ends_here else [url for url in links.links if rules.takes(url)]
    try:
        await in_transaction(_taken, claim, job, page, found, wanted)
    except LimitReached as error:  # no fault of the page's, nor of the crawl's
        await in_transaction(frontier.uncount_try, claim, page.id)
        raise Snooze(error.retry_after_s, error.message, code=error.code) from error
    except (Conflict, InvalidInput, NotFound) as error:
        await in_transaction(frontier.record_failure, claim, page.id, error, state="failed")


def _taken(session: Session, claim: Claim, job: Crawl, page: CrawlPage, found: PageText, wanted: list[str]) -> None:
    about = job.about(About(url=page.url))
    quota.within(
        session,
        claim.tenant,
        frontier.accept_page,
        claim,
        page.id,
        about,
        content_of(found, claim.id),
        wanted,
        job.limit,
    )


async def _patiently(page: CrawlPage) -> PageText:
    """The page; its host's wish for a pause is kept here, where other pages would have to wait for it anyway."""
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
