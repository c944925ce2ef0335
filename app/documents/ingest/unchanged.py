"""A version that says nothing new: it ends at once, and the one that is searched stays."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.documents.ingest.draft import Draft, result_of
from app.documents.models import Document, DocumentVersion
from app.search.index import generations
from app.search.models import Chunk, vector_of

# Of Firecrawl's metadata.
_FLEETING = {
    "scrapeId", "proxyUsed", "cacheState", "cachedAt", "creditsUsed", "concurrencyLimited",
    "concurrencyQueueDurationMs", "timezone",
}  # fmt: skip
_DESCRIBED = ("title", "description", "language", "country", "is_mobile", "tags", "source")


def says_the_same(document: Document, current: DocumentVersion, draft: Draft) -> bool:
    """Whether text and description are those that are searched, in whatever mark-up they came."""
    said = {name: getattr(document, name) for name in _DESCRIBED} | {"metadata": document.meta}
    return current.text == draft.text and lasting(said) == lasting({name: draft.fields[name] for name in said})


def lasting(fields: dict[str, Any]) -> dict[str, Any]:
    """What is said of a page, without what is said of this fetching of it."""
    metadata = fields.get("metadata") or {}
    return {**fields, "metadata": {name: value for name, value in metadata.items() if name not in _FLEETING}}


def end_unchanged(
    session: Session, document: Document, version: DocumentVersion, current: DocumentVersion, draft: Draft
) -> dict[str, Any] | None:
    """End the version as one that says nothing new; None where the document lacks vectors that are searched now."""
    if not searchable(session, document.id):
        return None
    if current.url == version.url:
        current.etag, current.last_modified = version.etag, version.last_modified
    version.state, version.body, version.html = "unchanged", None, None
    return still_so(document, current, version.fetched_at, draft)


def confirmed_since(session: Session, version: DocumentVersion) -> bool:
    """Whether a newer version has ended so: what is searched is newer than this one, though its version is older."""
    newer = sa.select(DocumentVersion.id).where(
        DocumentVersion.document_id == version.document_id,
        DocumentVersion.id > version.id,
        DocumentVersion.state == "unchanged",
    )
    return session.scalar(newer.limit(1)) is not None


def searchable(session: Session, document_id: int) -> bool:
    """Whether all of its chunks have vectors of the model that is searched with."""
    searched = generations.live(session)[0].generation
    without = sa.select(Chunk.id).where(Chunk.document_id == document_id, vector_of(searched).is_(None))
    return session.scalar(without.limit(1)) is None


def still_so(
    document: Document, current: DocumentVersion, fetched_at: datetime, draft: Draft | None = None
) -> dict[str, Any]:
    """What ingest() returns of a document whose current version was found unchanged; both know when."""
    current.fetched_at = document.fetched_at = fetched_at
    return result_of("unchanged", document.id, current.id, draft or Draft()) | {"chunks": document.chunk_count}
