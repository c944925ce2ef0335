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
from app.sources.fetching.polite_fetch import Guest
from app.sources.fetching.politeness import host_of
from app.sources.fetching.sitemap_limits import MOST_BYTES, MOST_PAGES

MOST_FILES = 20
DEEPEST = 2
READ_LIMIT_S = 60.0
READ = "app.sources.fetching.sitemap_parser:read_sitemap"  # by name: its libraries are loaded in the sandboxes alone
_UNREADABLE = (InvalidInput, Rejected, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded)
_ACCEPT = "application/xml,text/xml,text/plain;q=0.9,*/*;q=0.1"

log = get_logger(__name__)


class Entry(NamedTuple):
    url: str
    lastmod: datetime | None


async def entries(url: str, *, most: int = MOST_PAGES) -> AsyncIterator[Entry]:
    """The pages of the URL's host that its sitemaps name, each once; none where it has no sitemap.

    A file that cannot be read is passed over. Raises Unavailable and Snooze as visit() does.
    """
    named = await _sitemaps_of(url)
    waiting = deque((there, 0) for there in named)
    asked: set[str] = set()
    told: set[str] = set()
    while waiting and len(asked) < MOST_FILES:
        there, depth = waiting.popleft()
        if there in asked:
            continue
        asked.add(there)
        found = await _file(there)
        if depth < DEEPEST:
            waiting.extend((inner, depth + 1) for inner, _ in found["sitemaps"])
        for page, lastmod in found["pages"]:
            if page not in told and host_of(page) == host_of(url):
                told.add(page)
                yield Entry(page, _moment(lastmod))
                if len(told) >= most:
                    return


async def _sitemaps_of(url: str) -> list[str]:
    async with Guest() as guest:
        await guest.come(urljoin(url, "/"))
        return await robots.sitemaps(url) or [urljoin(url, "/sitemap.xml")]


async def _file(url: str) -> dict[str, Any]:
    """{sitemaps, pages} of one file, pairs of an address and its date; both empty where it is none."""
    try:
        async with Guest() as guest:
            found = await download(url, accept=_ACCEPT, most_bytes=MOST_BYTES, before=guest.come)
        found.check_status()
        return await _read(found.body, found.url)
    except _UNREADABLE as error:
        log.info("sitemap_unreadable", url=url, reason=error.message)
        return {"sitemaps": [], "pages": []}


async def _read(body: bytes, url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "sitemap"
        await asyncio.to_thread(blob.write_bytes, body)
        await call.run(READ, {"url": url}, blob=blob, time_limit_s=READ_LIMIT_S)
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
