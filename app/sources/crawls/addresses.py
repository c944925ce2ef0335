"""Addresses of one page: its key in a crawl, its variants, and the document that has it already."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.errors import InvalidInput
from app.documents import urls
from app.documents.models import Document

_INDEX = re.compile(r"/(?:index|default)\.(?:html?|php|aspx?|jsp)$", re.IGNORECASE)


def clean(url: str) -> str:
    """Return the URL without parameters that identify the visit; unchanged if it is invalid."""
    try:
        return urls.without_session(url)
    except InvalidInput:
        return url


def key_of(url: str) -> str | None:
    """Return a hash that all addresses of the page share, by http and https, with and without `www.`; None if invalid.

    A hash, because an address may be too long for an index.
    """
    try:
        spelling = urls.canonical(urls.check_url(url))
    except InvalidInput:
        return None
    parts = urlsplit(spelling)
    page = f"{parts.netloc.removeprefix('www.')}{parts.path}?{parts.query}"
    return hashlib.sha256(page.encode("utf-8", "replace")).hexdigest()


def variants(url: str) -> list[str]:
    """Return addresses at which most servers have the same page: with or without a last slash or `index.html`."""
    parts = urlsplit(url)
    folder = _INDEX.sub("/", parts.path)
    bare = folder.rstrip("/")
    paths = [bare, f"{bare}/", *(f"{bare}/index.{ending}" for ending in ("html", "htm", "php"))]
    return [parts._replace(path=path).geturl() for path in paths]


def document_url(session: Session, tenant: str, url: str, requested_url: str) -> str:
    """Return the URL under which the page is a document.

    That is the spelling of an existing document. A document of an earlier crawl at the requested URL, which redirects
    by now, moves to the new one.
    """
    spellings = urls.spellings(url)
    documents = _find(session, tenant, spellings)
    existing = next((documents[spelling] for spelling in spellings if spelling in documents), None)
    if existing is not None:
        return existing.url or url
    former = _find(session, tenant, [urls.canonical(requested_url)])
    for document in former.values():
        if document.source == "crawl" and document.external_id is None:
            document.url, document.canonical_url, document.domain = url, urls.canonical(url), urls.domain(url)
            session.flush()
    return url


def _find(session: Session, tenant: str, spellings: list[str]) -> dict[str, Document]:
    query = sa.select(Document).where(Document.tenant == tenant, Document.canonical_url.in_(spellings))
    return {str(document.canonical_url): document for document in session.scalars(query)}
