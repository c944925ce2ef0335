"""Parse one sitemap file into its pages or further sitemaps; runs in the sandbox since the bytes are untrusted.

Many sites have invalid files: blanks before the declaration, ampersands that are not escaped, an end that is missing.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from lxml import etree

from app.core.errors import InvalidInput
from app.documents.extract.xml_parser import parse_xml
from app.documents.models import MAX_URL_BYTES

_GZIP = b"\x1f\x8b"
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_BLANKS = b" \t\r\n\x00"
# An ampersand that begins no reference of XML.
_RAW_AMPERSAND = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)")
# The end of an entry, behind which a cut file is not read.
_ENTRY_END = re.compile(rb"</(?:[\w-]+:)?(?:url|sitemap|item|entry)\s*>", re.IGNORECASE)
_DECLARATION = re.compile(rb"<\?xml[^>]*\?>")
_FEED_ROOTS = {"rss", "rdf", "feed"}
_DATES = ("lastmod", "pubdate", "date", "updated", "published")


def read_sitemap(blob: Path, url: str, max_pages: int, max_bytes: int) -> None:
    """Write {sitemaps, pages, is_cut} as JSON to a file next to the blob. Raises InvalidInput. Runs in the sandbox."""
    body = blob.read_bytes()
    is_cut = False
    while body.startswith(_GZIP):  # some are compressed as a file and again for the transfer
        body, is_short = _unpack(body, max_bytes)
        is_cut = is_cut or is_short
    body = _as_utf8(body).strip(_BLANKS)
    file: dict[str, object] = {"sitemaps": [], "pages": [], "is_cut": is_cut}
    if body.startswith(b"<"):
        root, is_short = _parse_leniently(body)
        lines, file["is_cut"] = _of_xml(root), is_cut or is_short
    else:
        lines = _of_text(body)
    urls: dict[str, list[tuple[str, str]]] = {"sitemaps": [], "pages": []}
    for kind, location, lastmod in lines:
        absolute = _absolute(url, location)
        if absolute is not None:
            urls[kind].append((absolute, lastmod[:40]))
        if len(urls[kind]) >= max_pages:
            break
    blob.with_suffix(".json").write_text(json.dumps(file | urls), "utf-8")


def _unpack(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """Return the unpacked bytes, and True if the end of the file is missing. Raises InvalidInput if nothing is left."""
    parts, size, is_short = [], 0, False
    while body.startswith(_GZIP):
        stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            parts.append(stream.decompress(body, max_bytes + 1 - size))
        except zlib.error as error:
            unpacked = _unpack_damaged(body, max_bytes + 1 - size)
            if not parts and not unpacked:
                message = f"the compressed sitemap is damaged: {error}"
                raise InvalidInput(message, code="broken_document") from error
            return b"".join([*parts, unpacked]), True
        size += len(parts[-1])
        if size > max_bytes:
            raise InvalidInput("the compressed sitemap is too large", code="archive_bomb")
        is_short = not stream.eof
        body = stream.unused_data.lstrip(b"\0")
    return b"".join(parts), is_short


def _unpack_damaged(body: bytes, max_bytes: int) -> bytes:
    """Return the bytes before the damage."""
    stream, parts, size = zlib.decompressobj(16 + zlib.MAX_WBITS), [], 0
    for start in range(0, len(body), 1024):
        try:
            parts.append(stream.decompress(body[start : start + 1024], max_bytes - size))
        except zlib.error:
            break
        size += len(parts[-1])
        if size >= max_bytes:
            break
    return b"".join(parts)


def _as_utf8(body: bytes) -> bytes:
    """Return the body without a byte order mark; one in UTF-16 as UTF-8, without its declaration."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            body = body[len(mark) :]
            if codec == "utf-8":
                return body
            return _DECLARATION.sub(b"", body.decode(codec, "replace").encode(), count=1)
    return body


def _parse_leniently(body: bytes) -> tuple[etree._Element, bool]:
    """Return the root element, and True if the end of the file is missing. Raises InvalidInput."""
    body = _RAW_AMPERSAND.sub(b"&amp;", body)
    try:
        return parse_xml(body), False
    except InvalidInput as error:
        if error.code != "broken_document" or b"<!DOCTYPE" in body.upper()[:1000]:
            raise
        broken = error
    ends = [match.end() for match in _ENTRY_END.finditer(body)]
    if not ends:
        raise broken
    is_cut = _is_cut(body[ends[-1] :])
    root = _recover(body[: ends[-1]] if is_cut else body)
    if root is None:
        raise broken
    return root, is_cut


def _is_cut(rest: bytes) -> bool:
    """Return True if the file ends without closing its root element."""
    return re.search(rb"</(?:[\w-]+:)?(?:urlset|sitemapindex|rss|feed|rdf)\s*>", rest, re.IGNORECASE) is None


def _recover(body: bytes) -> etree._Element | None:
    """Parse what can be parsed; with the same restrictions as parse_xml()."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, recover=True, load_dtd=False)
    try:
        return etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _of_xml(root: etree._Element) -> Iterator[tuple[str, str, str]]:
    """Yield the entries of a urlset or sitemapindex, at any depth, or of an RSS or Atom feed."""
    if _name(root) in _FEED_ROOTS:
        yield from _of_feed(root)
        return
    for node in root.iter():
        kind = {"url": "pages", "sitemap": "sitemaps"}.get(_name(node))
        fields = _fields(node) if kind else {}
        if kind and fields.get("loc"):
            yield kind, fields["loc"], fields.get("lastmod", "")


def _of_feed(root: etree._Element) -> Iterator[tuple[str, str, str]]:
    for node in root.iter():
        if _name(node) not in ("item", "entry"):
            continue
        fields = _fields(node)
        date = next((fields[name] for name in _DATES if fields.get(name)), "")
        link = _link(node) or fields.get("link") or _permanent_link(node)
        if link:
            yield "pages", link, date


def _link(node: etree._Element) -> str:
    """Return the address of an Atom entry: its alternate link, or one without a relation."""
    for child in node:
        if _name(child) == "link" and child.get("rel", "alternate") == "alternate" and child.get("href"):
            return str(child.get("href")).strip()
    return ""


def _permanent_link(node: etree._Element) -> str:
    """Return the address in the `guid` or `id` of an entry, if that is one."""
    for child in node:
        if _name(child) in ("guid", "id") and child.get("isPermaLink", "true").lower() == "true":
            text = _text(child)
            if text.startswith(("http://", "https://")):
                return text
    return ""


def _fields(node: etree._Element) -> dict[str, str]:
    """Return the texts of the child elements by name; of several with one name the first."""
    fields: dict[str, str] = {}
    for child in node:
        fields.setdefault(_name(child), _text(child))
    return fields


def _text(node: etree._Element) -> str:
    return "".join(str(text) for text in node.itertext()).strip()


def _of_text(body: bytes) -> Iterator[tuple[str, str, str]]:
    for line in body.decode("utf-8", "replace").splitlines():
        if line.strip().lower().startswith(("http://", "https://")):
            yield "pages", line.strip(), ""


def _absolute(base: str, location: str) -> str | None:
    try:
        absolute = urljoin(base, location)
        parts = urlsplit(absolute)
    except ValueError:
        return None
    is_page = parts.scheme in ("http", "https") and len(absolute) <= MAX_URL_BYTES
    return absolute if is_page else None


def _name(node: etree._Element) -> str:
    return str(node.tag).rpartition("}")[2].rpartition(":")[2].lower() if isinstance(node.tag, str) else ""
