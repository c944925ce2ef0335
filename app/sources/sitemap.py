"""The pages that a site names itself: its sitemaps, found by robots.txt or at their usual place."""

from __future__ import annotations

import asyncio
import json
import tempfile
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from lxml import etree

from app.core.errors import InvalidInput, LaneCrashed, LaneOutOfMemory, Rejected, TimeLimitExceeded
from app.core.logging import get_logger
from app.documents.extract.archives import xml
from app.documents.models import LONGEST_URL
from app.jobs import lanes
from app.sources import robots
from app.sources.download import download
from app.sources.politeness import host_of
from app.sources.visit import Guest

MOST_PAGES = 50_000
MOST_FILES = 20
DEEPEST = 2
# The protocol's own limit of a file, unpacked.
MOST_BYTES = 50 * 1024 * 1024
READ_LIMIT_S = 60.0
_UNREADABLE = (InvalidInput, Rejected, LaneCrashed, LaneOutOfMemory, TimeLimitExceeded)
_ACCEPT = "application/xml,text/xml,text/plain;q=0.9,*/*;q=0.1"
_GZIP = b"\x1f\x8b"

log = get_logger(__name__)


class Entry(NamedTuple):
    url: str
    lastmod: datetime | None


async def entries(url: str, *, most: int = MOST_PAGES) -> AsyncIterator[Entry]:
    """The pages of the URL's host that its sitemaps name, each once; none where it has no sitemap.

    A file that cannot be read is passed over. Raises Unavailable and Later as visit() does.
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
        await lanes.run(read_sitemap, {"url": url}, blob=blob, time_limit_s=READ_LIMIT_S)
        said = await asyncio.to_thread(blob.with_suffix(".json").read_text, "utf-8")
    found: dict[str, Any] = await asyncio.to_thread(json.loads, said)
    return found


def read_sitemap(blob: Path, url: str) -> None:
    """Write what _file() returns into the file beside it, `.json`. Raises InvalidInput. Runs in a lane."""
    body = blob.read_bytes()
    if body.startswith(_GZIP):
        body = _unpacked(body)
    lines = _of_xml(body) if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else _of_text(body)
    found: dict[str, list[tuple[str, str]]] = {"sitemaps": [], "pages": []}
    for kind, said, lastmod in lines:
        there = urljoin(url, said)
        if len(there) <= LONGEST_URL and urlsplit(there).scheme in ("http", "https"):
            found[kind].append((there, lastmod[:40]))
        if len(found[kind]) >= MOST_PAGES:
            break
    blob.with_suffix(".json").write_text(json.dumps(found), "utf-8")


def _unpacked(body: bytes) -> bytes:
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = stream.decompress(body, MOST_BYTES + 1)
    except zlib.error as error:
        raise InvalidInput(f"the packed sitemap is broken: {error}", code="broken_document") from error
    if len(found) > MOST_BYTES:
        raise InvalidInput("the packed sitemap is too large", code="archive_bomb")
    return found


def _of_xml(body: bytes) -> Iterator[tuple[str, str, str]]:
    """urlset, sitemapindex, RSS and Atom name pages in their own ways; these are the first two."""
    for node in xml(body):
        kind = {"url": "pages", "sitemap": "sitemaps"}.get(_name(node))
        said = {_name(child): (child.text or "").strip() for child in node} if kind else {}
        if kind and said.get("loc"):
            yield kind, said["loc"], said.get("lastmod", "")


def _of_text(body: bytes) -> Iterator[tuple[str, str, str]]:
    for line in body.decode("utf-8-sig", "replace").splitlines():
        if line.strip().lower().startswith(("http://", "https://")):
            yield "pages", line.strip(), ""


def _name(node: etree._Element) -> str:
    return str(node.tag).rpartition("}")[2] if isinstance(node.tag, str) else ""


def _moment(said: str) -> datetime | None:
    """Of a W3C date, which may lack its time or its zone."""
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
