"""The pages that a site names itself: its sitemaps, found by robots.txt or at their usual place."""

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
from app.jobs.sandbox import call
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
READ = "app.sources.fetching.sitemap_parser:read_sitemap"  # by name: its libraries are loaded in the lanes alone
_UNREADABLE = (InvalidInput, Rejected, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded)
_ACCEPT = "application/xml,text/xml,text/plain;q=0.9,*/*;q=0.1"

log = get_logger(__name__)


class SitemapEntry(NamedTuple):
    url: str
    lastmod: datetime | None


async def entries(url: str, *, max_pages: int = MAX_PAGES) -> AsyncIterator[SitemapEntry]:
    """The pages of the URL's host that its sitemaps name, each once; none where it has no sitemap.

    A file that cannot be read is passed over. Raises Unavailable and Snooze as fetch_politely() does.
    """
    named = await _sitemaps_of(url)
    waiting = deque((there, 0) for there in named)
    asked: set[str] = set()
    told: set[str] = set()
    while waiting and len(asked) < MAX_FILES:
        there, depth = waiting.popleft()
        if there in asked:
            continue
        asked.add(there)
        found = await _file(there)
        if depth < MAX_DEPTH:
            waiting.extend((inner, depth + 1) for inner, _ in found["sitemaps"])
        for page, lastmod in found["pages"]:
            if page not in told and host_of(page) == host_of(url):
                told.add(page)
                yield SitemapEntry(page, _moment(lastmod))
                if len(told) >= max_pages:
                    return


async def _sitemaps_of(url: str) -> list[str]:
    async with HostSession() as host_session:
        await host_session.wait_turn(urljoin(url, "/"))
        return await robots.sitemaps(url) or [urljoin(url, "/sitemap.xml")]


async def _file(url: str) -> dict[str, Any]:
    """{sitemaps, pages} of one file, pairs of an address and its date; both empty where it is none."""
    try:
        async with HostSession() as host_session:
            found = await download(url, accept=_ACCEPT, max_bytes=MAX_FILE_BYTES, before=host_session.wait_turn)
        found.check_status()
        return await _read(found.body, found.url)
    except _UNREADABLE as error:
        log.info("sitemap_unreadable", url=url, reason=error.message)
        return {"sitemaps": [], "pages": []}


async def _read(body: bytes, url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "sitemap"
        await asyncio.to_thread(blob.write_bytes, body)
        limits = {"max_pages": MAX_PAGES, "max_bytes": MAX_FILE_BYTES}
        await call.run(READ, {"url": url, **limits}, blob=blob, time_limit_s=READ_TIMEOUT_S)
        said = await asyncio.to_thread(blob.with_suffix(".json").read_text, "utf-8")
    found: dict[str, Any] = await asyncio.to_thread(json.loads, said)
    return found


def _moment(said: str) -> datetime | None:
    """Of a W3C date, which may lack its time or its zone."""
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
