"""A page that is a file, such as a PDF: stored as an upload is."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from app.core.blobs import blobs
from app.documents.accept.accept import Original
from app.documents.accept.uploads import safe_name
from app.documents.files import sniff
from app.sources.fetching.download import Download

# Types of pages and of parts of pages, whatever else their content could be taken for.
_PAGES = {"text/html", "application/xhtml+xml", "text/markdown", "text/x-markdown", "text/plain"}
_PARTS = re.compile(r"text/css|(?:text|application)/(?:x-)?(?:java|ecma)script|(?:font|audio|video)/.*|image/svg\+xml")
_TEXTS = re.compile(r"text/.+|application/(?:.+\+)?(?:json|xml|yaml|x-ndjson)|message/rfc822")
# Beginnings of files that servers send as text.
_MAGIC = (b"%PDF-", b"PK\x03\x04")
# The encoded form of the name, which counts more, and the plain one.
_ENCODED_NAME = re.compile(r"filename\*\s*=\s*[\w-]*'[\w-]*'([^;\s]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"filename\s*=\s*(?:\"([^\"]+)\"|([^;\s]+))", re.IGNORECASE)


async def store_file(response: Download) -> Original | None:
    """Store the body if it is a readable file; return None for a page, and for a file of no readable kind."""
    media_type = response.media_type
    is_page = media_type is None or media_type in _PAGES or "/" not in media_type
    if not response.body or (is_page and not response.body.startswith(_MAGIC)) or _PARTS.fullmatch(media_type or ""):
        return None
    name = file_name(response)
    kind = await asyncio.to_thread(_kind, response.body, name)
    # What is not what its server says, and only looks like text, is broken.
    is_text = kind is not None and kind.startswith(("text/", "message/")) and not _TEXTS.fullmatch(media_type or "")
    if kind is None or kind == sniff.HTML or is_text:
        return None
    blob = await blobs().put(response.body)
    return Original(blob.key, blob.size_bytes, kind, name)


def file_name(response: Download) -> str:
    """Return the name that the server gives the file, else the last part of its URL."""
    header = response.headers.get("content-disposition", "")
    match = _ENCODED_NAME.search(header) or _PLAIN_NAME.search(header)
    named = match and next(filter(None, match.groups()), None)
    return safe_name(unquote(named or PurePosixPath(urlsplit(response.url).path).name))


def _kind(body: bytes, name: str) -> str | None:
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(body)
        return sniff.sniff(path, name)
