"""Hits as the API shows them: texts, snippets, scores, and fields of their documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.search.engines.base import EngineRequest, Hit, SearchResult
from app.search.models import Chunk, document
from app.search.query.all_chunks import place_of
from app.search.text.snippets import snippet

_DOCUMENT = (
    "url", "canonical_url", "domain", "title", "description", "language", "country", "is_mobile", "tags", "metadata",
    "source",
)  # fmt: skip


def results(session: Session, ask: EngineRequest, result: SearchResult) -> list[dict[str, Any]]:
    """Return results in the hits' order; a hit is left out if its document was replaced after the engine's read."""
    rows = _rows(session, ask.tenant, [hit.chunk_id for hit in result.hits])
    return [
        _result(hit, row, result.terms) | {"weak": _is_weak(hit, ask.weak_below)}
        for hit in result.hits
        if (row := rows.get(hit.chunk_id)) and row["document_id"] == hit.document_id
    ]


def _rows(session: Session, tenant: str, chunk_ids: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    """Return rows by chunk id."""
    if not chunk_ids:
        return {}
    query = (
        sa.select(
            Chunk.id.label("chunk_id"),
            Chunk.document_id,
            Chunk.version_id.label("content_id"),
            Chunk.ordinal,
            Chunk.text,
            Chunk.span_start,
            Chunk.span_end,
            Chunk.page,
            Chunk.headings,
            Chunk.language.label("chunk_language"),
            *(document.c[name] for name in _DOCUMENT),
        )
        .join(document, document.c.id == Chunk.document_id)
        .where(Chunk.tenant == tenant, Chunk.id.in_(chunk_ids))
    )
    return {row["chunk_id"]: dict(row) for row in session.execute(query).mappings()}


def _result(hit: Hit, row: Mapping[str, Any], terms: Sequence[int]) -> dict[str, Any]:
    shown = snippet(row["text"], terms, row["chunk_language"])
    return {
        "id": str(row["content_id"]),
        "url": row["url"],
        "title": row["title"],
        "description": row["description"],
        "text": row["text"],
        "score": hit.score,
        "metadata": _metadata(row),
        "document_id": str(hit.document_id),
        "snippet": shown.text,
        "snippet_start": row["span_start"] + shown.start,
        "highlights": [list(span) for span in shown.highlights],
        "scores": {
            "keyword": hit.keyword,
            "semantic": hit.semantic,
            "keyword_rank": hit.keyword_rank,
            "semantic_rank": hit.semantic_rank,
        },
        "chunk": place_of(hit.chunk_id, row),
    }


def _is_weak(hit: Hit, weak_below: float) -> bool:
    """Return True if only its meaning brought the hit here, and that is far from the query's."""
    return hit.keyword is None and hit.semantic is not None and hit.semantic < weak_below


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the caller's own metadata, overlaid with the keys that clients of the old service read."""
    shown = ("url", "canonical_url", "title", "description", "domain", "language", "country")
    return {
        **(row["metadata"] or {}),
        **{name: row[name] for name in shown},
        "content_id": str(row["content_id"]),
        "is_mobile": row["is_mobile"],
        "isMobile": row["is_mobile"],
        "tags": row["tags"] or [],
        "source_type": row["source"],
        "section": row["headings"][-1] if row["headings"] else None,
        "chunk_index": row["ordinal"],
    }
