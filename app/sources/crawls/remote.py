"""Run a crawl at Firecrawl: start it once, poll its status, and pass its pages to the crawl's children."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy.orm import Session

from app.clients.firecrawl import firecrawl
from app.core.db import in_transaction
from app.core.errors import Conflict, InvalidInput, LimitReached, NotFound, Rejected, Snooze, Unavailable
from app.core.settings import get_settings
from app.documents.accept import quota
from app.documents.accept.accept import About
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.crawls import crawls, frontier
from app.sources.crawls.jobs import Crawl, StopCrawl
from app.sources.crawls.rules import as_expression
from app.sources.fetching.fetch_page import fetch_page, refuse_private
from app.sources.models import CrawlSession
from app.sources.payloads.firecrawl_events import FirecrawlPage, page_of

# Firecrawl's error for a page that redirects to a page of the same crawl.
DUPLICATE = "SCRAPE_RACED_REDIRECT_ERROR"
# Pauses between status requests; the last is the interval that Firecrawl's documentation recommends.
PAUSES_S = (1.0, 2.0, 5.0, 10.0)


async def run(job: Crawl, row: CrawlSession, progress: Progress) -> None:
    """Run the crawl until Firecrawl reports its end. Raises Rejected if it refuses, Unavailable while it is down."""
    claim = progress.claim
    remote_id = row.remote_id or await _start(job, row, claim)
    seen = int(row.extra.get("pages_seen", 0))
    turn = 0
    while True:
        part = await firecrawl().crawl_status(remote_id, after=f"/v2/crawl/{remote_id}?skip={seen}")
        for document in part.data:
            await _store_page(job, document, progress)
        seen += len(part.data)
        await in_transaction(_record_seen, claim, seen)
        progress.report(seen, max(part.total, seen, 1), unit="pages", stage="fetch")
        if part.data:
            turn = 0
            continue
        if part.status != "scraping":
            break
        await asyncio.sleep(PAUSES_S[min(turn, len(PAUSES_S) - 1)])
        turn += 1
    for failed in await firecrawl().crawl_errors(remote_id):
        reason = str(failed.get("error") or "no reason given")
        if DUPLICATE not in f"{failed.get('code')} {reason}":
            await in_transaction(_record_failure, claim, str(failed.get("url") or ""), reason)
    await _retry_pages(job, progress)
    await in_transaction(_record_end, claim, part.status)


async def _retry_pages(job: Crawl, progress: Progress) -> None:
    """Fetch the pages again whose servers may answer by now, after the delays in the settings."""
    claim, delays = progress.claim, get_settings().crawl_retry_delays
    while (row := await in_transaction(frontier.next_failed, claim)) is not None:
        await asyncio.sleep(delays[min(row.tries, len(delays)) - 1] if delays else 0.0)
        try:
            fetched = await fetch_page(row.url)
            content = replace(fetched.content, crawl_session=claim.id)
            about = fetched.about(About(url=row.url))
            page = FirecrawlPage(row.url, about, content)
            await in_transaction(quota.within, claim.tenant, _accept_page, claim, job, page)
        except LimitReached as error:
            await in_transaction(frontier.uncount_try, claim, row.id)
            raise Snooze(error.retry_after_s, error.message, code=error.code) from error
        except (Unavailable, Snooze) as error:
            await in_transaction(frontier.record_failure, claim, row.id, error, state="found")
        except (Rejected, Conflict, NotFound, InvalidInput) as error:
            await in_transaction(frontier.record_failure, claim, row.id, error, state="failed")


async def _start(job: Crawl, row: CrawlSession, claim: Claim) -> str:
    """Start the crawl and store its id.

    If the response to an earlier start was lost, Firecrawl refuses the same key, and the running crawl is looked up.
    """
    refuse_private(job.url)
    try:
        remote_id = await firecrawl().start_crawl(_options(job), idempotency_key=_key(row))
    except Conflict:
        remote_id = await _find_running(job)
    await in_transaction(_record_start, claim, remote_id)
    return remote_id


def _key(row: CrawlSession) -> str:
    """Return the idempotency key, a UUID: the job's id, or another after each manual retry."""
    restarts = row.extra.get("restarts")
    return str(uuid5(UUID(row.crawl_id), str(restarts))) if restarts else row.crawl_id


async def _find_running(job: Crawl) -> str:
    for active in await firecrawl().active_crawls():
        if active.get("url") == job.url and isinstance(active.get("id"), str):
            return str(active["id"])
    raise Rejected("Firecrawl started this crawl before, and no longer reports it", code="crawl_lost")


def _options(job: Crawl) -> dict[str, Any]:
    options: dict[str, Any] = {
        "url": job.url,
        "limit": job.limit,
        "maxDiscoveryDepth": job.max_depth,
        "sitemap": "include" if job.sitemap == "only" else job.sitemap,
        "crawlEntireDomain": True,
        "allowSubdomains": job.subdomains,
        "includePaths": [as_expression(pattern) for pattern in job.include],
        "excludePaths": [as_expression(pattern) for pattern in job.exclude],
        "scrapeOptions": {"formats": ["markdown", "html"], "maxAge": 0},
    }
    return {name: value for name, value in options.items() if value != []}


async def _store_page(job: Crawl, document: dict[str, Any], progress: Progress) -> None:
    """Store one page; repeats are harmless, and a refused page does not stop the others."""
    claim = progress.claim
    page = page_of(document, claim.id)
    if page.url is None:
        return
    if page.error is not None:
        state = "found" if page.is_temporary else "failed"
        await in_transaction(_record_failure, claim, page.url, page.error, state)
        return
    try:
        await in_transaction(quota.within, claim.tenant, _accept_page, claim, job, page)
    except LimitReached as error:  # neither the page nor the crawl is the cause
        raise Snooze(error.retry_after_s, error.message, code=error.code) from error
    except (Rejected, Conflict, NotFound, InvalidInput) as error:
        await in_transaction(_record_failure, claim, page.url, error.message)


def _accept_page(session: Session, claim: Claim, job: Crawl, page: FirecrawlPage) -> None:
    assert page.about is not None and page.content is not None
    row = frontier.find_or_add(session, claim, str(page.url))
    if row is not None:
        about = job.about(page.about)
        frontier.accept_page(session, claim, row.id, about, page.content, (), job.limit)


def _record_failure(session: Session, claim: Claim, url: str, why: str, state: str = "failed") -> None:
    row = frontier.find_or_add(session, claim, url)
    if row is not None and row.state != "taken":
        frontier.record_failure(session, claim, row.id, Rejected(why, code="firecrawl_page"), state=state)


def _record_start(session: Session, claim: Claim, remote_id: str) -> None:
    claims.hold(session, claim)
    crawls.get(session, claim.tenant, claim.id).remote_id = remote_id


def _record_seen(session: Session, claim: Claim, seen: int) -> None:
    claims.hold(session, claim)
    row = crawls.get(session, claim.tenant, claim.id)
    row.extra = {**row.extra, "pages_seen": seen}


def _record_end(session: Session, claim: Claim, status: str) -> None:
    claims.hold(session, claim)
    row = crawls.get(session, claim.tenant, claim.id)
    failed = None if status == "completed" else f"Firecrawl reports the crawl as {status}"
    row.extra = {**row.extra, "remote_status": status, "failed": failed}


async def stop(job: StopCrawl) -> dict[str, Any]:
    """Cancel the crawl at Firecrawl; succeeds if it has ended or no longer exists."""
    try:
        await firecrawl().cancel_crawl(job.remote_id)
    except (Conflict, NotFound) as error:
        return {"stopped": False, "why": error.message}
    return {"stopped": True}
