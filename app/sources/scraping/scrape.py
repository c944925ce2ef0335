"""Scrape one page at once: from the cache, or with Firecrawl, or without one with the built-in fetcher."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.clients import firecrawl
from app.clients.firecrawl_errors import FirecrawlTimeout, PageRejected
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import (
    InvalidInput,
    OutsideError,
    SandboxCrashed,
    SandboxOutOfMemory,
    Snooze,
    TimeLimitExceeded,
    Unavailable,
)
from app.core.network.guard import is_private_by_name
from app.documents.ingest.ingest import extract_html, extract_original
from app.documents.text import scrub_text
from app.sources.fetching.page_text import PageText
from app.sources.fetching.polite_fetch import fetch_politely
from app.sources.models import ScrapedPage
from app.sources.scraping import cache

Handling = Literal["saveAndReturn", "saveOnly", "returnOnly"]

# Formats that hold a document's text; the first present one counts.
_TEXTS = ("html", "rawHtml", "markdown", "summary")
_DATA_URI = re.compile(r"data:(image/[a-z+.-]{1,40});base64,(.*)", re.DOTALL)
_SANDBOX_ERRORS = (SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page and its options; `options` are Firecrawl's, without those at their default."""

    url: str
    formats: tuple[str, ...]
    timeout_ms: int
    max_age_ms: int
    options: Mapping[str, Any] = field(default_factory=dict)
    clean: bool = True
    force: bool = False
    handling: Handling = "saveAndReturn"

    def cache_key(self) -> str:
        """Return a key that is equal for all requests with the same result."""
        parts = {
            "url": self.url,
            "extract": None,
            "cleanScrape": self.clean,
            "onlyMainContent": self.options.get("onlyMainContent", True),
            "includeTags": sorted(self.options.get("includeTags", ())),
            "excludeTags": sorted(self.options.get("excludeTags", ())),
            "formats": sorted(self.formats),
        }
        # Other options, such as cookies or clicks, change the page.
        others = {name: value for name, value in self.options.items() if name not in parts}
        return hashlib.sha256(json.dumps(parts | others, sort_keys=True).encode()).hexdigest()

    def to_firecrawl(self) -> dict[str, Any]:
        """Return the options for Firecrawl; they bypass its cache, which does not report the age of pages."""
        return {"url": self.url, **firecrawl_options(self.formats, self.timeout_ms, self.options)}


def firecrawl_options(formats: tuple[str, ...], timeout_ms: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in Firecrawl's form, for one page or a batch."""
    full_screenshot: dict[str, Any] = {"type": "screenshot", "fullPage": True}
    names = [full_screenshot if name == "screenshot@fullPage" else name for name in formats]
    return {"formats": names, "timeout": timeout_ms, "maxAge": 0, **options}


async def scrape(tenant: str, request: PageRequest) -> dict[str, Any]:
    """Return the page in the old service's shape.

    Raises PageFault if the page is the cause of the failure, FirecrawlTimeout, and the errors of Firecrawl and SQL.
    """
    key = request.cache_key()
    page = None if request.force else await read(cache.find, tenant, key, request.max_age_ms)
    cached = page is not None
    if page is not None:
        await in_transaction(cache.count_access, page.id)
    else:
        page = await (_by_firecrawl(request) if firecrawl.is_configured() else _by_builtin(request))
        page.tenant, page.cache_key = tenant, key
        page.expires_at = page.scraped_at + cache.age(request.max_age_ms)
        if request.handling != "returnOnly":
            await in_transaction(cache.store, page)
    return _describe(page, request.handling, cached=cached)


async def _by_firecrawl(request: PageRequest) -> ScrapedPage:
    if is_private_by_name(request.url):
        raise PageRejected(f"{request.url} is not on the public internet", code="private_address")
    document = await firecrawl.firecrawl().scrape(request.to_firecrawl())
    texts = {name: document[name] for name in _TEXTS if _is_text(document.get(name))}
    raw, kind = next(
        ((texts[name], "text/html" if name in ("html", "rawHtml") else "text/markdown") for name in texts), (None, None)
    )
    cleaned = texts.get("markdown") if request.clean else None
    screenshot, its_format = _screenshot(document.get("screenshot"))
    if raw is None:
        others = {
            name: document[name]
            for name in request.formats
            if document.get(name) and name not in (*_TEXTS, "screenshot")
        }
        if not others and screenshot is None:
            raise PageRejected(f"{request.url} has no text", code="no_content")
        if others:
            raw, kind = json.dumps(others), "application/json"
    return ScrapedPage(
        url=request.url,
        source="firecrawl",
        raw=raw,
        cleaned=cleaned,
        content_type="text/markdown" if cleaned else kind,
        screenshot=screenshot,
        screenshot_format=its_format,
        scraped_at=clock.now(),
    )


async def _by_builtin(request: PageRequest) -> ScrapedPage:
    try:
        async with asyncio.timeout(request.timeout_ms / 1000):
            page = await _read_file(await fetch_politely(request.url))
            html = page.format == "html"
            cleaned: str | None = page.text
            if html:
                _, cleaned = await extract_html(page.text, page.url) if request.clean else (None, None)
    except TimeoutError as error:
        raise FirecrawlTimeout(
            f"{request.url} took longer than {request.timeout_ms} ms", code="scrape_timeout"
        ) from error
    except Snooze as error:
        raise Unavailable(error.message, code=error.code, retry_after_s=error.retry_after_s) from error
    except (OutsideError, InvalidInput) as error:
        raise PageRejected(error.message, code=error.code) from error
    except _SANDBOX_ERRORS as error:
        raise PageRejected(f"{request.url} cannot be read: {error.message}", code="unreadable") from error
    if not page.text.strip():
        raise PageRejected(f"{request.url} has no text", code="no_content")
    plain = "text/plain" if page.format == "text" else "text/markdown"
    return ScrapedPage(
        url=request.url,
        source="builtin",
        raw=scrub_text(page.text),
        cleaned=scrub_text(cleaned) if cleaned and request.clean else None,
        content_type="text/html" if html and not cleaned else plain,
        scraped_at=clock.now(),
    )


async def _read_file(page: PageText) -> PageText:
    """Return a page that is a file as its Markdown; any other page unchanged."""
    if page.original is None:
        return page
    return replace(page, format="markdown", text=await extract_original(page.original))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _screenshot(value: Any) -> tuple[str | None, str | None]:
    """Return base64 data and media type; a URL is returned unchanged, without a type."""
    if not isinstance(value, str) or not value:
        return None, None
    match = _DATA_URI.fullmatch(value)
    if match:
        return match[2], match[1]
    return value, None if value.startswith(("http://", "https://")) else "image/png"


def _describe(page: ScrapedPage, handling: Handling, *, cached: bool) -> dict[str, Any]:
    at = page.scraped_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    is_returned, is_saved = handling != "saveOnly", handling != "returnOnly"
    age_ms = max(0, round((clock.now() - page.scraped_at).total_seconds() * 1000))
    uris = {
        "raw": f"scrape://{page.url}/raw_{at}" if page.raw else None,
        "cleaned": f"scrape://{page.url}/cleaned_{at}" if page.cleaned else None,
        "extracted": None,
    }
    return {
        "url": page.url,
        "source": page.source,
        "timestamp": at,
        "cached": cached,
        "cacheAge": age_ms if cached else None,
        "content": (page.cleaned or page.raw) if is_returned else None,
        "contentType": page.content_type,
        "screenshot": page.screenshot if is_returned else None,
        "screenshotFormat": page.screenshot_format if is_returned else None,
        "savedUris": uris if is_saved else None,
        "metadata": {
            "rawLength": len(page.raw or ""),
            "cleanedLength": len(page.cleaned) if page.cleaned else None,
            "extractedLength": None,
            "wasTruncated": False,
        },
        "message": None if is_returned else "Content saved to cache",
    }
