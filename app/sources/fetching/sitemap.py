"""Pages listed in a site's sitemaps, which are found through robots.txt or at their usual URL."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

from app.core.errors import (
    InvalidInput,
    Rejected,
    SandboxCrashed,
    SandboxOutOfMemory,
    TimeLimitExceeded,
    Unavailable,
)
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.documents import urls
from app.jobs.sandbox import call
from app.sources.fetching import robots
from app.sources.fetching.download import Download, download
from app.sources.fetching.inflate import IncompleteBody
from app.sources.fetching.polite_fetch import HostSession

MAX_PAGES = 50_000
# The protocol's limit for one file, unpacked.
MAX_FILE_BYTES = 50 * 1024 * 1024
# A crawl of the largest size needs fewer; with the pause between two requests they take ten minutes.
MAX_FILES = 600
MAX_REPORTED_FILES = 20
MAX_DEPTH = 2
READ_TIMEOUT_S = 60.0
READ = "app.sources.fetching.sitemap_parser:read_sitemap"  # by name: only sandbox processes load its libraries
_UNREADABLE = (InvalidInput, Rejected, Unavailable, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded)
# Longest wait for a server that asks for a pause.
MAX_PAUSE_S = 60.0
_ACCEPT = "application/xml,text/xml,application/rss+xml,application/atom+xml,text/plain;q=0.9,*/*;q=0.1"

log = get_logger(__name__)


class Missing(Rejected):
    """The site has no such file."""


class SitemapEntry(NamedTuple):
    url: str
    lastmod: datetime | None


@dataclass(slots=True)
class SitemapReport:
    """Files that were read; `broken` could not be read, or not to their end; `unread` are beyond the limits."""

    files: int = 0
    broken: list[str] = field(default_factory=list)
    unread: int = 0

    def add_broken(self, url: str, reason: str) -> None:
        log.info("sitemap_unreadable", url=url, reason=reason)
        if len(self.broken) < MAX_REPORTED_FILES:
            self.broken.append(url)

    def view(self) -> dict[str, Any]:
        return asdict(self)


async def entries(
    url: str,
    *,
    max_pages: int = MAX_PAGES,
    accepts: Callable[[str], bool] | None = None,
    report: SitemapReport | None = None,
) -> AsyncIterator[SitemapEntry]:
    """Yield the pages in the sitemaps of the URL's site, each once; nothing without a sitemap.

    `accepts` decides which pages are of the site, by default all of its host, with or without `www.`. Files that cannot
    be read are skipped after a few tries; the report names them. Raises Unavailable if robots.txt cannot be read, and
    Snooze like fetch_politely().
    """
    report = report if report is not None else SitemapReport()
    is_ours = accepts or (lambda page: urls.site_host(page) == urls.site_host(url))
    waiting = deque((file_url, 0) for file_url in await _sitemaps_of(url))
    requested: set[str] = set()
    yielded: set[str] = set()
    while waiting:
        if len(requested) >= MAX_FILES:
            report.unread += len({file_url for file_url, _ in waiting} - requested)
            log.info("sitemap_files_left", url=url, files=len(requested), unread=report.unread)
            return
        file_url, depth = waiting.popleft()
        if file_url in requested:
            continue
        requested.add(file_url)
        file = await _read_file(file_url, report, is_guess=depth == 0)
        if depth < MAX_DEPTH:
            waiting.extend((inner, depth + 1) for inner, _ in file["sitemaps"])
        else:
            report.unread += len({inner for inner, _ in file["sitemaps"]} - requested)
        for page, lastmod in file["pages"]:
            if page not in yielded and is_ours(page):
                yielded.add(page)
                yield SitemapEntry(page, _parse_date(lastmod))
                if len(yielded) >= max_pages:
                    report.unread += len({other for other, _ in waiting} - requested)
                    return


async def _sitemaps_of(url: str) -> list[str]:
    async with HostSession() as host_session:
        await host_session.wait_turn(urljoin(url, "/"))
        return await robots.sitemaps(url) or [urljoin(url, "/sitemap.xml")]


async def _read_file(url: str, report: SitemapReport, *, is_guess: bool) -> dict[str, Any]:
    """Return {sitemaps, pages} of one file, as pairs of URL and date; both empty for an invalid file.

    `is_guess`: the file need not exist.
    """
    nothing: dict[str, Any] = {"sitemaps": [], "pages": [], "is_cut": False}
    try:
        body, base, is_cut = await _request(url)
        file = await _parse(body, base)
    except _UNREADABLE as error:
        if not (is_guess and isinstance(error, Missing)):
            report.add_broken(url, error.message)
        return nothing
    report.files += 1
    if file["is_cut"] or is_cut or len(body) >= MAX_FILE_BYTES:
        report.add_broken(url, "the file ends early")
    return file


async def _request(url: str) -> tuple[bytes, str, bool]:
    """Return the body, its URL after redirects, and True if its end is missing; tried again like a page of a crawl.

    Raises Missing, Rejected, Unavailable and Snooze.
    """
    delays = [*get_settings().crawl_retry_delays, None]
    while True:
        delay_s = delays.pop(0)
        try:
            response = await _download(url)
            return response.body, response.url, False
        except Unavailable as error:
            if delay_s is not None:
                await asyncio.sleep(max(delay_s, min(error.retry_after_s or 0.0, MAX_PAUSE_S)))
            elif isinstance(error, IncompleteBody) and error.partial:
                return error.partial, url, True
            else:
                raise


async def _download(url: str) -> Download:
    async with HostSession() as host_session:
        response = await download(
            url, accept=_ACCEPT, max_bytes=MAX_FILE_BYTES, truncate=True, before=host_session.wait_turn
        )
    if response.status_code in (404, 410):
        raise Missing(f"{response.url} answered {response.status_code}", code="http_status")
    response.check_status()
    return response


async def _parse(body: bytes, url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "sitemap"
        await asyncio.to_thread(blob.write_bytes, body)
        limits = {"max_pages": MAX_PAGES, "max_bytes": MAX_FILE_BYTES}
        await call.run(READ, {"url": url, **limits}, blob=blob, time_limit_s=READ_TIMEOUT_S)
        text = await asyncio.to_thread(blob.with_suffix(".json").read_text, "utf-8")
    file: dict[str, Any] = await asyncio.to_thread(json.loads, text)
    return file


def _parse_date(text: str) -> datetime | None:
    """Parse a W3C date, which may lack its time or zone, or the date of a feed; None for an invalid one."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = parse(text)
        except (ValueError, TypeError, IndexError):
            continue
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    return None
