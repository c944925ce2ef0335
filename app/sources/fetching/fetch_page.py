"""One page for the index, by whichever fetcher the settings choose: Firecrawl where one is set up, else our own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import overload

from app.clients import firecrawl
from app.core import clock
from app.core.errors import Rejected
from app.core.guard import is_private_by_name
from app.core.settings import get_settings
from app.documents.accept.accept import About, Content
from app.sources.fetching.page_text import NotModified, PageText, Validators
from app.sources.fetching.polite_fetch import fetch_politely
from app.sources.payloads.firecrawl_events import page_of

_ASKED = {"formats": ["markdown", "html"], "maxAge": 0}


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """A page's content, and what it says of itself; that is None where our own fetcher read it: ingest finds it."""

    content: Content
    said: About | None = None

    def about(self, given: About) -> About:
        """What a caller said of the page, and where he said nothing what the page says."""
        if self.said is None:
            return given
        return replace(
            given,
            title=given.title or self.said.title,
            description=given.description or self.said.description,
            language=given.language or self.said.language,
            country=given.country or self.said.country,
            metadata={**self.said.metadata, **given.metadata},
        )


@overload
async def fetch_page(url: str) -> FetchedPage: ...
@overload
async def fetch_page(url: str, *, seen: Validators | None) -> FetchedPage | NotModified: ...
async def fetch_page(url: str, *, seen: Validators | None = None) -> FetchedPage | NotModified:
    """The page as it is now, or that it is as it was `seen`. Raises as fetch_politely() and Firecrawl's client do."""
    if get_settings().fetcher != "builtin" and firecrawl.is_configured():
        return await _by_firecrawl(url)
    page = await fetch_politely(url, seen=seen)
    return page if isinstance(page, NotModified) else FetchedPage(content_of(page))


def content_of(page: PageText, crawl: str | None = None) -> Content:
    """The page as documents take it."""
    return Content(
        page.format,
        page.text,
        resolved_url=page.url,
        status_code=page.status_code,
        crawl_session=crawl,
        fetched_at=clock.now(),
        etag=page.etag,
        last_modified=page.last_modified,
    )


def refuse_private(url: str) -> None:
    """Before Firecrawl is asked, which stands where our own services do. Raises Rejected."""
    if is_private_by_name(url):
        raise Rejected(f"{url} is not on the public internet", code="private_address")


async def _by_firecrawl(url: str) -> FetchedPage:
    refuse_private(url)
    document = await firecrawl.firecrawl().scrape({"url": url, **_ASKED})
    page = page_of({**document, "metadata": {"url": url, **(document.get("metadata") or {})}}, None)
    if page.content is None:
        raise Rejected(f"{url}: {page.error}", code="empty_document")
    return FetchedPage(replace(page.content, fetched_at=clock.now()), page.about)
