"""Versions that change nothing: they end early, and the searched version stays."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.documents.ingest.draft import Draft, result_of
from app.documents.models import Document, DocumentVersion
from app.search.index import generations
from app.search.models import Chunk, vector_of

# Keys of Firecrawl's metadata that change with every fetch.
_FLEETING = {
    "scrapeId", "proxyUsed", "cacheState", "cachedAt", "creditsUsed", "concurrencyLimited",
    "concurrencyQueueDurationMs", "timezone",
}  # fmt: skip
_DESCRIBED = ("title", "description", "language", "country", "is_mobile", "tags", "source")


def has_same_text(document: Document, current: DocumentVersion, draft: Draft) -> bool:
    """Return True if text and description equal the searched ones, whatever the mark-up."""
    fields = {name: getattr(document, name) for name in _DESCRIBED} | {"metadata": document.meta}
    return current.text == draft.text and drop_fleeting(fields) == drop_fleeting(draft.fields.view())


def drop_fleeting(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields without the metadata that changes with every fetch."""
    metadata = fields.get("metadata") or {}
    return {**fields, "metadata": {name: value for name, value in metadata.items() if name not in _FLEETING}}


def end_unchanged(
    session: Session, document: Document, version: DocumentVersion, current: DocumentVersion, draft: Draft
) -> dict[str, Any] | None:
    """End the version as unchanged; None if the document lacks vectors of the searched model."""
    if not has_all_vectors(session, document.id):
        return None
    if current.url == version.url:
        current.etag, current.last_modified = version.etag, version.last_modified
    version.state, version.body, version.html = "unchanged", None, None
    return confirm_unchanged(document, current, version.fetched_at, draft)


def is_outdated(session: Session, version: DocumentVersion) -> bool:
    """Return True if a newer version ended as unchanged: the searched content is then newer than this version."""
    newer = sa.select(DocumentVersion.id).where(
        DocumentVersion.document_id == version.document_id,
        DocumentVersion.id > version.id,
        DocumentVersion.state == "unchanged",
    )
    return session.scalar(newer.limit(1)) is not None


def has_all_vectors(session: Session, document_id: int) -> bool:
    """Return True if all chunks of the document have vectors of the searched model."""
    searched = generations.live(session)[0].generation
    without = sa.select(Chunk.id).where(Chunk.document_id == document_id, vector_of(searched).is_(None))
    return session.scalar(without.limit(1)) is None


def confirm_unchanged(
    document: Document, current: DocumentVersion, fetched_at: datetime, draft: Draft | None = None
) -> dict[str, Any]:
    """Return the result of ingest() for an unchanged document; document and version get the new time of fetching."""
    current.fetched_at = document.fetched_at = fetched_at
    return result_of("unchanged", document.id, current.id, draft or Draft()) | {"chunks": document.chunk_count}
