"""Pages found by a crawl, stored in SQL so that an interrupted crawl continues where it stopped.

One transaction accepts a page: its text as a version, the child job that indexes it, and the URLs it links to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.errors import AppError
from app.core.logging import get_logger
from app.documents.accept.accept import About, Content, find_or_make, receive
from app.documents.jobs import IngestDocument
from app.documents.models import MAX_URL_BYTES, DocumentVersion
from app.documents.text import clean_line
from app.jobs.children import children
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.sources.crawls import addresses, patterns
from app.sources.models import CrawlPage, CrawlSession

MAX_TRIES = 3
# Links taken from one page; pages with more are rarely useful.
MAX_LINKS = 5_000
MAX_RECORDED_PATTERNS = 50
# Code of a page that names another address as its own.
CANONICAL = "canonical"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PageAddress:
    """The address of a page after redirects; `canonical` is the one that the page itself names, if it counts."""

    url: str
    canonical: str | None = None


@dataclass(frozen=True, slots=True)
class FrontierCounts:
    """Number of pages by state; `found` pages wait to be fetched, `redirected` ones are no pages of their own."""

    found: int = 0
    taken: int = 0
    failed: int = 0
    skipped: int = 0
    redirected: int = 0

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
    _add(session, claim, [url], 0)
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
        _add(session, claim, new_urls, depth, room, max_pages)


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
    address: PageAddress | None = None,
) -> None:
    """Accept the page: a child job indexes it, and its links are added. Raises the errors of accept().

    A page at another address is accepted under the row of that address, and only once.
    """
    claims.hold(session, claim)
    row = session.get_one(CrawlPage, page_id)
    if row.state == "taken":
        return
    target = _settle(session, claim, row, address or PageAddress(row.url), content)
    if target is not None:
        _accept_at(session, claim, target, about, content, row.url)
        row = target
    room = max_pages - count(session, claim.id).total
    if links and room > 0:
        _add(session, claim, links[:MAX_LINKS], row.depth + 1, room, max_pages)


def _accept_at(
    session: Session, claim: Claim, row: CrawlPage, about: About, content: Content, requested_url: str
) -> None:
    about = replace(about, url=addresses.document_url(session, claim.tenant, row.url, requested_url))
    document_id = find_or_make(session, about, tenant=claim.tenant)
    version_id = receive(session, document_id, about, content, tenant=claim.tenant)
    count_taken = sa.select(sa.func.count()).where(CrawlPage.crawl_id == claim.id, CrawlPage.number.is_not(None))
    number = session.scalar(count_taken) or 0
    row.state, row.number, row.document_id, row.version_id = "taken", number, document_id, version_id
    row.error_code = row.error_message = None
    job = IngestDocument(document_id=document_id, version_id=version_id)
    children.start(session, claim, [job], first=number, document_id=document_id)


def _settle(session: Session, claim: Claim, row: CrawlPage, address: PageAddress, content: Content) -> CrawlPage | None:
    """Return the row under which the text is accepted; None if another row has the page, or will have it."""
    key = addresses.key_of(address.url)
    if key is not None and key == row.url_key:
        row.url = address.url
    elif key is not None:
        other = _row(session, claim, key) or _add_row(session, claim, address.url, key, row)
        _redirect(row, address.url, None)
        if other.state in ("taken", "redirected"):
            return None
        row = other
    canonical_key = addresses.key_of(address.canonical) if address.canonical else None
    if address.canonical and canonical_key is not None and canonical_key != row.url_key:
        other = _row(session, claim, canonical_key) or _add_row(session, claim, address.canonical, canonical_key, row)
        if other.state in ("found", "taken"):
            _redirect(row, address.canonical, CANONICAL)
            return None
    twin = _find_twin(session, claim, row, content)
    if twin is not None:
        _redirect(row, twin.url, "duplicate")
        return None
    return row


def _redirect(row: CrawlPage, url: str, code: str | None) -> None:
    row.state, row.error_code, row.error_message = "redirected", code, clean_line(url, MAX_URL_BYTES)


def _row(session: Session, claim: Claim, key: str) -> CrawlPage | None:
    query = sa.select(CrawlPage).where(CrawlPage.crawl_id == claim.id, CrawlPage.url_key == key)
    return session.scalars(query).one_or_none()


def _add_row(session: Session, claim: Claim, url: str, key: str, source: CrawlPage) -> CrawlPage:
    """Add the page that another one leads to; it takes that page's place in the limit."""
    row = CrawlPage(
        crawl_id=claim.id, url=url, url_key=key, pattern=source.pattern, depth=source.depth, state="found", tries=0,
        created_at=clock.now(),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def _find_twin(session: Session, claim: Claim, row: CrawlPage, content: Content) -> CrawlPage | None:
    """Return an accepted page with the same text whose address differs in a last slash or `index.html` only."""
    keys = {key for url in addresses.variants(row.url) if (key := addresses.key_of(url))} - {row.url_key}
    query = sa.select(CrawlPage).join(DocumentVersion, DocumentVersion.id == CrawlPage.version_id)
    same = (CrawlPage.crawl_id == claim.id, CrawlPage.url_key.in_(keys), CrawlPage.state == "taken")
    query = query.where(*same, DocumentVersion.content_hash == content.content_hash())
    return session.scalars(query.limit(1)).one_or_none()


def record_failure(session: Session, claim: Claim, page_id: int, error: AppError, *, state: str) -> None:
    """Record the error and set the state: failed, skipped, or found, which is tried again up to MAX_TRIES."""
    claims.hold(session, claim)
    row = session.get_one(CrawlPage, page_id)
    row.state = "failed" if state == "found" and row.tries >= MAX_TRIES else state
    row.error_code, row.error_message = error.code, clean_line(error.message, 1000)
    if row.state in ("failed", "skipped"):  # the pages that name this one as theirs are read after all
        led_here = (CrawlPage.crawl_id == claim.id, CrawlPage.state == "redirected", CrawlPage.error_code == CANONICAL)
        update = sa.update(CrawlPage).where(*led_here, CrawlPage.error_message == clean_line(row.url, MAX_URL_BYTES))
        session.execute(update.values(state="found", tries=0))


def find_or_add(session: Session, claim: Claim, url: str) -> CrawlPage | None:
    """Return the row of a page that Firecrawl fetched, created if needed; None for an invalid URL."""
    claims.hold(session, claim)
    key = addresses.key_of(url)
    if key is None:
        return None
    _add(session, claim, [url], 0)
    return _row(session, claim, key)


def count(session: Session, crawl_id: str) -> FrontierCounts:
    query = sa.select(CrawlPage.state, sa.func.count()).where(CrawlPage.crawl_id == crawl_id)
    return FrontierCounts(**{row[0]: row[1] for row in session.execute(query.group_by(CrawlPage.state))})


def _add(
    session: Session, claim: Claim, new_urls: Sequence[str], depth: int, limit: int = 1, max_pages: int | None = None
) -> None:
    """Add the first `limit` URLs that are new, of each pattern as many as a crawl of `max_pages` pages may have."""
    keys = {key: url for url in map(addresses.clean, new_urls) if (key := addresses.key_of(url)) is not None}
    known = sa.select(CrawlPage.url_key).where(CrawlPage.crawl_id == claim.id, CrawlPage.url_key.in_(keys))
    known_keys = set(session.scalars(known))
    new = {key: url for key, url in keys.items() if key not in known_keys}
    room = _PatternRoom(session, claim, list(new.values()), max_pages)
    now, added = clock.now(), 0
    for key, url in new.items():
        if added == limit:
            break
        if not room.take(url):
            continue
        row = CrawlPage(
            crawl_id=claim.id, url=url, url_key=key, pattern=room.keys.get(url), depth=depth, state="found", tries=0,
            created_at=now,
        )  # fmt: skip
        session.add(row)
        added += 1
    session.flush()
    if room.full:
        _record_bounded(session, claim, room.full)


class _PatternRoom:
    """Number of pages that each pattern of the new URLs may still have."""

    def __init__(self, session: Session, claim: Claim, new_urls: list[str], max_pages: int | None) -> None:
        self.full: set[str] = set()
        self._max = patterns.max_pages(max_pages) if max_pages is not None else None
        self._patterns = {url: pattern for url in new_urls if (pattern := patterns.pattern_of(url))}
        self.keys = {url: patterns.key_of(pattern) for url, pattern in self._patterns.items()}
        query = sa.select(CrawlPage.pattern, sa.func.count()).where(
            CrawlPage.crawl_id == claim.id, CrawlPage.pattern.in_(set(self.keys.values()))
        )
        rows = session.execute(query.group_by(CrawlPage.pattern)) if self._max is not None and self.keys else ()
        self._counts = Counter({str(pattern): int(number) for pattern, number in rows})

    def take(self, url: str) -> bool:
        """Count the URL; return False if its pattern has no room."""
        key = self.keys.get(url)
        if key is None or self._max is None:
            return True
        if self._counts[key] >= self._max:
            self.full.add(self._patterns[url])
            return False
        self._counts[key] += 1
        return True


def _record_bounded(session: Session, claim: Claim, full: set[str]) -> None:
    """Record patterns whose further pages the crawl leaves out."""
    query = sa.select(CrawlSession).where(CrawlSession.tenant == claim.tenant, CrawlSession.crawl_id == claim.id)
    row = session.scalars(query.with_for_update()).one()
    known = row.extra.get("bounded", [])
    new = sorted(full - set(known))[: max(0, MAX_RECORDED_PATTERNS - len(known))]
    if new:
        row.extra = {**row.extra, "bounded": [*known, *new]}
        log.info("crawl_pattern_bounded", crawl_id=claim.id, patterns=new)
