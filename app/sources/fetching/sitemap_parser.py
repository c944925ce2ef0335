"""One sitemap's bytes to the pages it names, or the sitemaps; foreign bytes, so it runs in a lane."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from lxml import etree

from app.core.errors import InvalidInput
from app.documents.extract.archives import xml
from app.documents.models import LONGEST_URL

_GZIP = b"\x1f\x8b"


def read_sitemap(blob: Path, url: str, max_pages: int, max_bytes: int) -> None:
    """Write what _file() returns into the file beside it, `.json`. Raises InvalidInput. Runs in a lane."""
    body = blob.read_bytes()
    if body.startswith(_GZIP):
        body = _unpack(body, max_bytes)
    lines = _of_xml(body) if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else _of_text(body)
    found: dict[str, list[tuple[str, str]]] = {"sitemaps": [], "pages": []}
    for kind, said, lastmod in lines:
        there = urljoin(url, said)
        if len(there) <= LONGEST_URL and urlsplit(there).scheme in ("http", "https"):
            found[kind].append((there, lastmod[:40]))
        if len(found[kind]) >= max_pages:
            break
    blob.with_suffix(".json").write_text(json.dumps(found), "utf-8")


def _unpack(body: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"the packed sitemap is broken: {error}", code="broken_document") from error
    if len(found) > max_bytes:
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
