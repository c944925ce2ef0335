"""Run a crawl: one job finds pages, passes each to a child job that indexes it, and reports progress.

The job occupies no worker while its children index. A cancelled crawl stops at once; indexed pages stay.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.clients import firecrawl
from app.core.db import in_transaction, read
from app.core.errors import Rejected
from app.jobs.children.children import AGAIN, ALWAYS, WaitForChildren
from app.jobs.ledger.claims import Claim
from app.jobs.worker.progress import Progress
from app.sources.crawls import crawls, frontier
from app.sources.crawls import remote as crawl_remote
from app.sources.crawls.builtin import SiteCrawl
from app.sources.crawls.jobs import Crawl
from app.sources.models import CrawlSession

# Facts that the result of a crawl repeats if there are any.
_REPORTED = ("moved_to", "bounded")


async def crawl(job: Crawl, progress: Progress) -> dict[str, Any]:
    """Return {crawl_id, pages, indexed, failed, skipped}: pages accepted, and their numbers by result.

    Also, where it applies: `moved_to`, the site that the start redirects to; `bounded`, patterns whose further pages
    were left out; `sitemap`, if files of it were not read.
    """
    claim = progress.claim
    row = await in_transaction(frontier.begin, claim, job.url)
    if not claim.continues:
        if claim.family_rule == AGAIN:
            await _restart_children(claim)
        remote = job.engine == "firecrawl" or (job.engine == "auto" and firecrawl.is_configured())
        await (crawl_remote.run(job, row, progress) if remote else SiteCrawl(job, row, progress).run())
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
    facts = {name: row.extra[name] for name in _REPORTED if row.extra.get(name)}
    sitemap = row.extra.get("sitemap") or {}
    if sitemap.get("unread") or sitemap.get("broken"):
        facts["sitemap"] = sitemap
    return facts | {
        "crawl_id": crawl_id,
        "pages": counts.taken,
        "indexed": shown["pages_indexed"],
        "failed": shown["pages_failed"],
        "skipped": counts.skipped,
    }
