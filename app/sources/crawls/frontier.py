"""Pages found by a crawl, stored in SQL so that an interrupted crawl continues where it stopped.

One transaction accepts a page: its text as a version, the child job that indexes it, and the URLs it links to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import AppError, InvalidInput
from app.documents import urls
from app.documents.accept.accept import About, Content, find_or_make, receive
from app.documents.jobs import IngestDocument
from app.documents.text import clean_line
from app.jobs.children import children
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.sources.models import CrawlPage, CrawlSession

MAX_TRIES = 3
# Links taken from one page; pages with more are rarely useful.
MAX_LINKS = 5_000


@dataclass(frozen=True, slots=True)
class FrontierCounts:
    """Number of pages by state; `found` pages wait to be fetched."""

    found: int = 0
    taken: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        return self.found + self.taken + self.failed + self.skipped

    @property
    def done(self) -> int:
        return self.total - self.found


def begin(session: Session, claim: Claim, url: str) -> CrawlSession:
    """Start or continue the crawl with its first URL; after a manual retry, failed pages are tried again."""
    claims.hold(session, claim)
    query = sa.select(CrawlSession).where(CrawlSession.tenant == claim.tenant, CrawlSession.crawl_id == claim.id)
    row = session.scalars(query.with_for_update()).one()
    if row.state != "in_progress":
        if row.state != "pending":
            _reset_remote(row)
        row.state, row.success, row.completed_at, row.error_message = "in_progress", None, None, None
        failed = sa.update(CrawlPage).where(CrawlPage.crawl_id == claim.id, CrawlPage.state == "failed")
        session.execute(failed.values(state="found", tries=0))
    _add(session, claim.id, [url], 0)
    return row


def _reset_remote(row: CrawlSession) -> None:
    """Forget Firecrawl's run unless it completed, so that a new one starts with another key."""
    if row.extra.get("remote_status") != "completed":
        extra = {
            name: value for name, value in row.extra.items() if name not in ("pages_seen", "remote_status", "failed")
        }
        row.remote_id, row.extra = None, {**extra, "restarts": int(row.extra.get("restarts", 0)) + 1}


def restart_children(session: Session, claim: Claim, first: int) -> int:
    """Restart one batch of cancelled or failed children after a manual retry; return the size of the batch."""
    query = sa.select(CrawlPage.document_id, CrawlPage.version_id).where(
        CrawlPage.crawl_id == claim.id, CrawlPage.number >= first
    )
    pages = session.execute(query.order_by(CrawlPage.number).limit(children.PAGE)).all()
    jobs = [IngestDocument(document_id=document_id, version_id=version_id) for document_id, version_id in pages]
    children.start(session, claim, jobs, first=first)
    return len(pages)


def add(session: Session, claim: Claim, new_urls: Sequence[str], depth: int, max_pages: int) -> None:
    """Add the URLs that are new, up to `max_pages` pages in the crawl."""
    claims.hold(session, claim)
    room = max_pages - count(session, claim.id).total
    if room > 0:
        _add(session, claim.id, new_urls, depth, room)


def next_page(session: Session, claim: Claim) -> CrawlPage | None:
    """Return the next page to fetch and count a try; untried pages come first, then by order of discovery."""
    claims.hold(session, claim)
    query = sa.select(CrawlPage).where(CrawlPage.crawl_id == claim.id, CrawlPage.state == "found")
    row = session.scalars(query.order_by(CrawlPage.tries, CrawlPage.id).limit(1)).one_or_none()
    if row is not None:
        row.tries += 1
    return row


def next_failed(session: Session, claim: Claim) -> CrawlPage | None:
    """Return the next page that Firecrawl could not read but may answer by now, and count a try."""
    claims.hold(session, claim)
    query = sa.select(CrawlPage).where(
        CrawlPage.crawl_id == claim.id, CrawlPage.state == "found", CrawlPage.error_code.is_not(None)
    )
    row = session.scalars(query.order_by(CrawlPage.tries, CrawlPage.id).limit(1)).one_or_none()
    if row is not None:
        row.tries += 1
    return row


def uncount_try(session: Session, claim: Claim, page_id: int) -> None:
    """Take back one try of a page that was fetched but could not be accepted yet."""
    claims.hold(session, claim)
    session.get_one(CrawlPage, page_id).tries -= 1


def accept_page(
    session: Session,
    claim: Claim,
    page_id: int,
    about: About,
    content: Content,
    links: Sequence[str],
    max_pages: int,
) -> None:
    """Accept the page: a child job indexes it, and its links are added. Raises the errors of accept()."""
    claims.hold(session, claim)
    row = session.get_one(CrawlPage, page_id)
    if row.state == "taken":
        return
    document_id = find_or_make(session, about, tenant=claim.tenant)
    version_id = receive(session, document_id, about, content, tenant=claim.tenant)
    count_taken = sa.select(sa.func.count()).where(CrawlPage.crawl_id == claim.id, CrawlPage.number.is_not(None))
    number = session.scalar(count_taken) or 0
    row.state, row.number, row.document_id, row.version_id = "taken", number, document_id, version_id
    row.error_code = row.error_message = None
    job = IngestDocument(document_id=document_id, version_id=version_id)
    children.start(session, claim, [job], first=number, document_id=document_id)
    room = max_pages - count(session, claim.id).total
    if links and room > 0:
        _add(session, claim.id, links[:MAX_LINKS], row.depth + 1, room)


def record_failure(session: Session, claim: Claim, page_id: int, error: AppError, *, state: str) -> None:
    """Record the error and set the state: failed, skipped, or found, which is tried again up to MAX_TRIES."""
    claims.hold(session, claim)
    row = session.get_one(CrawlPage, page_id)
    row.state = "failed" if state == "found" and row.tries >= MAX_TRIES else state
    row.error_code, row.error_message = error.code, clean_line(error.message, 1000)


def find_or_add(session: Session, claim: Claim, url: str) -> CrawlPage | None:
    """Return the row of a page that Firecrawl fetched, created if needed; None for an invalid URL."""
    claims.hold(session, claim)
    _add(session, claim.id, [url], 0)
    key = _key(url)
    if key is None:
        return None
    return session.scalars(
        sa.select(CrawlPage).where(CrawlPage.crawl_id == claim.id, CrawlPage.url_key == key)
    ).one_or_none()


def count(session: Session, crawl_id: str) -> FrontierCounts:
    query = sa.select(CrawlPage.state, sa.func.count()).where(CrawlPage.crawl_id == crawl_id)
    return FrontierCounts(**{row[0]: row[1] for row in session.execute(query.group_by(CrawlPage.state))})


def _add(session: Session, crawl_id: str, new_urls: Sequence[str], depth: int, limit: int = 1) -> None:
    """Add the first `limit` URLs that are new."""
    keys = {key: url for url in new_urls if (key := _key(url)) is not None}
    known = sa.select(CrawlPage.url_key).where(CrawlPage.crawl_id == crawl_id, CrawlPage.url_key.in_(keys))
    known_keys = set(session.scalars(known))
    new = [(key, url) for key, url in keys.items() if key not in known_keys][:limit]
    now = clock.now()
    session.add_all(
        CrawlPage(crawl_id=crawl_id, url=url, url_key=key, depth=depth, state="found", tries=0, created_at=now)
        for key, url in new
    )
    session.flush()


def _key(url: str) -> str | None:
    try:
        return hashlib.sha256(urls.canonical(urls.check_url(url)).encode("utf-8", "replace")).hexdigest()
    except InvalidInput:
        return None
