"""Parse one sitemap file into its pages or further sitemaps; runs in the sandbox since the bytes are untrusted."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from lxml import etree

from app.core.errors import InvalidInput
from app.documents.extract.xml_parser import parse_xml
from app.documents.models import MAX_URL_BYTES

_GZIP = b"\x1f\x8b"


def read_sitemap(blob: Path, url: str, max_pages: int, max_bytes: int) -> None:
    """Write {sitemaps, pages} as JSON to a file next to the blob. Raises InvalidInput. Runs in the sandbox."""
    body = blob.read_bytes()
    if body.startswith(_GZIP):
        body = _unpack(body, max_bytes)
    lines = _of_xml(body) if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else _of_text(body)
    urls: dict[str, list[tuple[str, str]]] = {"sitemaps": [], "pages": []}
    for kind, location, lastmod in lines:
        absolute = urljoin(url, location)
        if len(absolute) <= MAX_URL_BYTES and urlsplit(absolute).scheme in ("http", "https"):
            urls[kind].append((absolute, lastmod[:40]))
        if len(urls[kind]) >= max_pages:
            break
    blob.with_suffix(".json").write_text(json.dumps(urls), "utf-8")


def _unpack(body: bytes, max_bytes: int) -> bytes:
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        unpacked = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"the compressed sitemap is damaged: {error}", code="broken_document") from error
    if len(unpacked) > max_bytes:
        raise InvalidInput("the compressed sitemap is too large", code="archive_bomb")
    return unpacked


def _of_xml(body: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield the entries of a urlset or sitemapindex; RSS and Atom are not read."""
    for node in parse_xml(body):
        kind = {"url": "pages", "sitemap": "sitemaps"}.get(_name(node))
        fields = {_name(child): (child.text or "").strip() for child in node} if kind else {}
        if kind and fields.get("loc"):
            yield kind, fields["loc"], fields.get("lastmod", "")


def _of_text(body: bytes) -> Iterator[tuple[str, str, str]]:
    for line in body.decode("utf-8-sig", "replace").splitlines():
        if line.strip().lower().startswith(("http://", "https://")):
            yield "pages", line.strip(), ""


def _name(node: etree._Element) -> str:
    return str(node.tag).rpartition("}")[2] if isinstance(node.tag, str) else ""
