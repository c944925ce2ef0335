"""Pages listed in a site's sitemaps, which are found through robots.txt or at their usual URL."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

from app.core.errors import InvalidInput, Rejected, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded
from app.core.logging import get_logger
from app.jobs.sandbox import call, outputs
from app.sources.fetching import robots
from app.sources.fetching.download import download
from app.sources.fetching.polite_fetch import HostSession
from app.sources.fetching.politeness import host_of

MAX_PAGES = 50_000
# The protocol's limit for one file, unpacked.
MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_FILES = 20
MAX_DEPTH = 2
READ_TIMEOUT_S = 60.0
READ = "app.sources.fetching.sitemap_parser:read_sitemap"  # by name: only sandbox processes load its libraries
_UNREADABLE = (InvalidInput, Rejected, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded)
_ACCEPT = "application/xml,text/xml,text/plain;q=0.9,*/*;q=0.1"

log = get_logger(__name__)


class SitemapEntry(NamedTuple):
    url: str
    lastmod: datetime | None


async def entries(url: str, *, max_pages: int = MAX_PAGES) -> AsyncIterator[SitemapEntry]:
    """Yield the pages of the URL's host in its sitemaps, each once; nothing without a sitemap.

    Skips files that cannot be read. Raises Unavailable and Snooze like fetch_politely().
    """
    waiting = deque((file_url, 0) for file_url in await _sitemaps_of(url))
    requested: set[str] = set()
    yielded: set[str] = set()
    while waiting and len(requested) < MAX_FILES:
        file_url, depth = waiting.popleft()
        if file_url in requested:
            continue
        requested.add(file_url)
        file = await _read_file(file_url)
        if depth < MAX_DEPTH:
            waiting.extend((inner, depth + 1) for inner, _ in file["sitemaps"])
        for page, lastmod in file["pages"]:
            if page not in yielded and host_of(page) == host_of(url):
                yielded.add(page)
                yield SitemapEntry(page, _parse_date(lastmod))
                if len(yielded) >= max_pages:
                    return


async def _sitemaps_of(url: str) -> list[str]:
    async with HostSession() as host_session:
        await host_session.wait_turn(urljoin(url, "/"))
        return await robots.sitemaps(url) or [urljoin(url, "/sitemap.xml")]


async def _read_file(url: str) -> dict[str, Any]:
    """Return {sitemaps, pages} of one file, as pairs of URL and date; both empty for an invalid file."""
    try:
        async with HostSession() as host_session:
            response = await download(url, accept=_ACCEPT, max_bytes=MAX_FILE_BYTES, before=host_session.wait_turn)
        response.check_status()
        return await _parse(response.body, response.url)
    except _UNREADABLE as error:
        log.info("sitemap_unreadable", url=url, reason=error.message)
        return {"sitemaps": [], "pages": []}


async def _parse(body: bytes, url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "sitemap"
        await asyncio.to_thread(blob.write_bytes, body)
        limits = {"max_pages": MAX_PAGES, "max_bytes": MAX_FILE_BYTES}
        await call.parse(READ, {"url": url, **limits}, blob=blob, time_limit_s=READ_TIMEOUT_S)
        text = await asyncio.to_thread(outputs.read_text, blob.with_suffix(".json"))
    file: dict[str, Any] = await asyncio.to_thread(json.loads, text)
    return file


def _parse_date(text: str) -> datetime | None:
    """Parse a W3C date, which may lack its time or zone; None for an invalid one."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
