"""A crawl that Firecrawl does for us: started once, asked how it is, its pages handed to the crawl's children."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy.orm import Session

from app.clients.firecrawl import firecrawl
from app.core.db import in_transaction
from app.core.errors import Conflict, InvalidInput, LimitReached, NotFound, Rejected, Snooze
from app.documents.accept import quota
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.crawls import crawls, frontier
from app.sources.crawls.jobs import Crawl, StopCrawl
from app.sources.crawls.rules import as_expression
from app.sources.fetching.fetch_page import refuse_private
from app.sources.models import CrawlSession
from app.sources.payloads.firecrawl_events import FirecrawlPage, page_of

# Soon at first, then as often as its documentation asks for at the most.
PAUSES_S = (1.0, 2.0, 5.0, 10.0)


async def run(job: Crawl, row: CrawlSession, progress: Progress) -> None:
    """Until Firecrawl says that it has ended. Raises Rejected for a final no, Unavailable while it is away."""
    claim = progress.claim
    remote_id = row.remote_id or await _start(job, row, claim)
    seen = int(row.extra.get("pages_seen", 0))
    turn = 0
    while True:
        part = await firecrawl().crawl_status(remote_id, after=f"/v2/crawl/{remote_id}?skip={seen}")
        for document in part.data:
            await _take(job, document, progress)
        seen += len(part.data)
        await in_transaction(_seen, claim, seen)
        progress.report(seen, max(part.total, seen, 1), unit="pages", stage="fetch")
        if part.data:
            turn = 0
            continue
        if part.status != "scraping":
            break
        await asyncio.sleep(PAUSES_S[min(turn, len(PAUSES_S) - 1)])
        turn += 1
    for failed in await firecrawl().crawl_errors(remote_id):
        await in_transaction(
            _failed, claim, str(failed.get("url") or ""), str(failed.get("error") or "no reason given")
        )
    await in_transaction(_ended, claim, part.status)


async def _start(job: Crawl, row: CrawlSession, claim: Claim) -> str:
    """Its id, noted. A start whose answer was lost is not made twice: the same key is refused, and looked up."""
    refuse_private(job.url)
    try:
        found = await firecrawl().start_crawl(_options(job), idempotency_key=_key(row))
    except Conflict:
        found = await _running(job)
    await in_transaction(_begun, claim, found)
    return found


def _key(row: CrawlSession) -> str:
    """A UUID, as Firecrawl wants it: the job's own, and after each retry by a person another."""
    restarts = row.extra.get("restarts")
    return str(uuid5(UUID(row.crawl_id), str(restarts))) if restarts else row.crawl_id


async def _running(job: Crawl) -> str:
    for one in await firecrawl().active_crawls():
        if one.get("url") == job.url and isinstance(one.get("id"), str):
            return str(one["id"])
    raise Rejected("Firecrawl has begun this crawl before, and does not say what became of it", code="crawl_lost")


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


async def _take(job: Crawl, document: dict[str, Any], progress: Progress) -> None:
    """A page, as often as it comes; one that cannot be taken keeps no other out."""
    claim = progress.claim
    page = page_of(document, claim.id)
    if page.url is None:
        return
    if page.error is not None:
        await in_transaction(_failed, claim, page.url, page.error)
        return
    try:
        await in_transaction(quota.within, claim.tenant, _taken, claim, job, page)
    except LimitReached as error:  # no fault of the page's, nor of the crawl's
        raise Snooze(error.retry_after_s, error.message, code=error.code) from error
    except (Rejected, Conflict, NotFound, InvalidInput) as error:
        await in_transaction(_failed, claim, page.url, error.message)


def _taken(session: Session, claim: Claim, job: Crawl, page: FirecrawlPage) -> None:
    assert page.about is not None and page.content is not None
    row = frontier.find_or_add(session, claim, str(page.url))
    if row is not None:
        about = job.about(page.about)
        frontier.accept_page(session, claim, row.id, about, page.content, (), job.limit)


def _failed(session: Session, claim: Claim, url: str, why: str) -> None:
    row = frontier.find_or_add(session, claim, url)
    if row is not None and row.state != "taken":
        frontier.record_failure(session, claim, row.id, Rejected(why, code="firecrawl_page"), state="failed")


def _begun(session: Session, claim: Claim, remote_id: str) -> None:
    claims.hold(session, claim)
    crawls.get(session, claim.tenant, claim.id).remote_id = remote_id


def _seen(session: Session, claim: Claim, seen: int) -> None:
    claims.hold(session, claim)
    row = crawls.get(session, claim.tenant, claim.id)
    row.extra = {**row.extra, "pages_seen": seen}


def _ended(session: Session, claim: Claim, status: str) -> None:
    claims.hold(session, claim)
    row = crawls.get(session, claim.tenant, claim.id)
    failed = None if status == "completed" else f"Firecrawl says that the crawl is {status}"
    row.extra = {**row.extra, "remote_status": status, "failed": failed}


async def stop(job: StopCrawl) -> dict[str, Any]:
    """Cancelled there; also where it has ended, or is not known any more."""
    try:
        await firecrawl().cancel_crawl(job.remote_id)
    except (Conflict, NotFound) as error:
        return {"stopped": False, "why": error.message}
    return {"stopped": True}
