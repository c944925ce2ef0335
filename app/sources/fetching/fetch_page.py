"""Fetch one page for the index, with Firecrawl if the settings name one, otherwise with the built-in fetcher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import overload

from app.clients import firecrawl
from app.core import clock
from app.core.errors import Rejected
from app.core.network.guard import is_private_by_name
from app.core.settings import get_settings
from app.documents.accept.accept import About, Content
from app.sources.fetching.page_text import EmptyPage, NotModified, PageText, Validators
from app.sources.fetching.polite_fetch import fetch_politely
from app.sources.payloads.firecrawl_events import page_of

_OPTIONS = {"formats": ["markdown", "html"], "maxAge": 0}


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """Content of a page and its own metadata; None from the built-in fetcher, since ingest extracts it."""

    content: Content
    metadata: About | None = None

    def about(self, submitted: About) -> About:
        """Return the submitted fields; those left empty are filled from the page's metadata."""
        if self.metadata is None:
            return submitted
        return replace(
            submitted,
            title=submitted.title or self.metadata.title,
            description=submitted.description or self.metadata.description,
            language=submitted.language or self.metadata.language,
            country=submitted.country or self.metadata.country,
            metadata={**self.metadata.metadata, **submitted.metadata},
        )


@overload
async def fetch_page(url: str) -> FetchedPage: ...
@overload
async def fetch_page(url: str, *, validators: Validators | None) -> FetchedPage | NotModified: ...
async def fetch_page(url: str, *, validators: Validators | None = None) -> FetchedPage | NotModified:
    """Fetch the page; return NotModified if its server still has the content of `validators`.

    Raises the errors of fetch_politely() and of Firecrawl's client.
    """
    if get_settings().fetcher != "builtin" and firecrawl.is_configured():
        return await _by_firecrawl(url)
    page = await fetch_politely(url, validators=validators)
    return page if isinstance(page, NotModified) else FetchedPage(content_of(page))


def content_of(page: PageText, crawl: str | None = None) -> Content:
    """Return the page as content of a document."""
    return Content(
        page.format,
        page.text,
        resolved_url=page.url,
        status_code=page.status_code,
        crawl_session=crawl,
        fetched_at=clock.now(),
        etag=page.etag,
        last_modified=page.last_modified,
        original=page.original,
    )


def refuse_private(url: str) -> None:
    """Refuse private addresses, which Firecrawl could reach in our network. Raises Rejected."""
    if is_private_by_name(url):
        raise Rejected(f"{url} is not on the public internet", code="private_address")


async def _by_firecrawl(url: str) -> FetchedPage:
    refuse_private(url)
    document = await firecrawl.firecrawl().scrape({"url": url, **_OPTIONS})
    page = page_of({**document, "metadata": {"url": url, **(document.get("metadata") or {})}}, None)
    if page.content is None:
        if page.is_temporary:
            raise EmptyPage(f"{url}: {page.error}")
        raise Rejected(f"{url}: {page.error}", code="empty_document")
    return FetchedPage(replace(page.content, fetched_at=clock.now()), page.about)
