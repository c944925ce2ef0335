"""One page by its address, now: from the cache, else by Firecrawl, else, where there is none, by our own fetcher."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from app.core.guard import is_private_by_name
from app.documents.ingest.ingest import extract_html
from app.documents.text import scrub_text
from app.sources.fetching.polite_fetch import fetch_politely
from app.sources.models import ScrapedPage
from app.sources.scraping import cache

Handling = Literal["saveAndReturn", "saveOnly", "returnOnly"]

# Which of a document's formats is its text, the first that is there.
_TEXTS = ("html", "rawHtml", "markdown", "summary")
_DATA_URI = re.compile(r"data:(image/[a-z+.-]{1,40});base64,(.*)", re.DOTALL)
_TRIPPED = (SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page and how it is wanted. `options` are Firecrawl's, of which those that it takes by default are left out."""

    url: str
    formats: tuple[str, ...]
    timeout_ms: int
    max_age_ms: int
    options: Mapping[str, Any] = field(default_factory=dict)
    clean: bool = True
    force: bool = False
    handling: Handling = "saveAndReturn"

    def cache_key(self) -> str:
        """The same for all wishes that bring the same page."""
        parts = {
            "url": self.url,
            "extract": None,
            "cleanScrape": self.clean,
            "onlyMainContent": self.options.get("onlyMainContent", True),
            "includeTags": sorted(self.options.get("includeTags", ())),
            "excludeTags": sorted(self.options.get("excludeTags", ())),
            "formats": sorted(self.formats),
        }
        # With a cookie or after a click it is another page.
        others = {name: value for name, value in self.options.items() if name not in parts}
        return hashlib.sha256(json.dumps(parts | others, sort_keys=True).encode()).hexdigest()

    def asked(self) -> dict[str, Any]:
        """What Firecrawl is asked; its own cache is passed by, which does not say how old its pages are."""
        return {"url": self.url, **firecrawl_options(self.formats, self.timeout_ms, self.options)}


def firecrawl_options(formats: tuple[str, ...], timeout_ms: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The wishes as Firecrawl takes them, for one page or many."""
    full: dict[str, Any] = {"type": "screenshot", "fullPage": True}
    wanted = [full if name == "screenshot@fullPage" else name for name in formats]
    return {"formats": wanted, "timeout": timeout_ms, "maxAge": 0, **options}


async def scrape(tenant: str, wish: PageRequest) -> dict[str, Any]:
    """The page in the old service's shape.

    Raises PageFault where it cannot be had for a reason of its own, FirecrawlTimeout, and what Firecrawl and SQL raise.
    """
    key = wish.cache_key()
    page = None if wish.force else await read(cache.find, tenant, key, wish.max_age_ms)
    cached = page is not None
    if page is not None:
        await in_transaction(cache.count_access, page.id)
    else:
        page = await (_by_firecrawl(wish) if firecrawl.is_configured() else _by_ourselves(wish))
        page.tenant, page.cache_key = tenant, key
        page.expires_at = page.scraped_at + cache.age(wish.max_age_ms)
        if wish.handling != "returnOnly":
            await in_transaction(cache.store, page)
    return _shown(page, wish.handling, cached=cached)


async def _by_firecrawl(wish: PageRequest) -> ScrapedPage:
    if is_private_by_name(wish.url):
        raise PageRejected(f"{wish.url} is not on the public internet", code="private_address")
    document = await firecrawl.firecrawl().scrape(wish.asked())
    texts = {name: document[name] for name in _TEXTS if _is_text(document.get(name))}
    raw, kind = next(
        ((texts[name], "text/html" if name in ("html", "rawHtml") else "text/markdown") for name in texts), (None, None)
    )
    cleaned = texts.get("markdown") if wish.clean else None
    screenshot, its_format = _screenshot(document.get("screenshot"))
    if raw is None:
        others = {
            one: document[one] for one in wish.formats if document.get(one) and one not in (*_TEXTS, "screenshot")
        }
        if not others and screenshot is None:
            raise PageRejected(f"{wish.url} has no text", code="no_content")
        if others:
            raw, kind = json.dumps(others), "application/json"
    return ScrapedPage(
        url=wish.url,
        source="firecrawl",
        raw=raw,
        cleaned=cleaned,
        content_type="text/markdown" if cleaned else kind,
        screenshot=screenshot,
        screenshot_format=its_format,
        scraped_at=clock.now(),
    )


async def _by_ourselves(wish: PageRequest) -> ScrapedPage:
    try:
        async with asyncio.timeout(wish.timeout_ms / 1000):
            page = await fetch_politely(wish.url)
            html = page.format == "html"
            cleaned: str | None = page.text
            if html:
                _, cleaned = await extract_html(page.text, page.url) if wish.clean else (None, None)
    except TimeoutError as error:
        raise FirecrawlTimeout(f"{wish.url} took longer than {wish.timeout_ms} ms", code="scrape_timeout") from error
    except Snooze as error:
        raise Unavailable(error.message, code=error.code, retry_after_s=error.retry_after_s) from error
    except (OutsideError, InvalidInput) as error:
        raise PageRejected(error.message, code=error.code) from error
    except _TRIPPED as error:
        raise PageRejected(f"{wish.url} cannot be read: {error.message}", code="unreadable") from error
    if not page.text.strip():
        raise PageRejected(f"{wish.url} has no text", code="no_content")
    plain = "text/plain" if page.format == "text" else "text/markdown"
    return ScrapedPage(
        url=wish.url,
        source="builtin",
        raw=scrub_text(page.text),
        cleaned=scrub_text(cleaned) if cleaned and wish.clean else None,
        content_type="text/html" if html and not cleaned else plain,
        scraped_at=clock.now(),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _screenshot(value: Any) -> tuple[str | None, str | None]:
    """Base64 and media type; an address where the picture lies is given as it is, of no type."""
    if not isinstance(value, str) or not value:
        return None, None
    found = _DATA_URI.fullmatch(value)
    if found:
        return found[2], found[1]
    return value, None if value.startswith(("http://", "https://")) else "image/png"


def _shown(page: ScrapedPage, handling: Handling, *, cached: bool) -> dict[str, Any]:
    at = page.scraped_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted, saved = handling != "saveOnly", handling != "returnOnly"
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
        "content": (page.cleaned or page.raw) if wanted else None,
        "contentType": page.content_type,
        "screenshot": page.screenshot if wanted else None,
        "screenshotFormat": page.screenshot_format if wanted else None,
        "savedUris": uris if saved else None,
        "metadata": {
            "rawLength": len(page.raw or ""),
            "cleanedLength": len(page.cleaned) if page.cleaned else None,
            "extractedLength": None,
            "wasTruncated": False,
        },
        "message": None if wanted else "Content saved to cache",
    }
