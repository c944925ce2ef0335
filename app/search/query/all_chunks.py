"""Every chunk of a document that fits the query, for callers that need more than the best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.search.engines.base import EngineRequest
from app.search.engines.best_chunk import ranked_chunks
from app.search.models import Chunk
from app.search.text.snippets import snippet

# Per document.
MAX_CHUNKS = 20


def add_chunks(session: Session, ask: EngineRequest, terms: Sequence[int], results: Sequence[dict[str, Any]]) -> None:
    """Add `chunks` to each result: [{id, ordinal, start, end, page, headings, text, snippet, snippet_start, highlights,
    score}].

    Best first. Scores are comparable only within one answer.
    """
    ranked = ranked_chunks(session, ask, terms, [int(result["document_id"]) for result in results])
    shown = {key: [chunk for chunk in chunks if chunk[1] > 0][:MAX_CHUNKS] for key, chunks in ranked.items()}
    ids = [chunk_id for chunks in shown.values() for chunk_id, _ in chunks]
    columns = (
        Chunk.id, Chunk.ordinal, Chunk.span_start, Chunk.span_end, Chunk.page, Chunk.headings, Chunk.text,
        Chunk.language,
    )  # fmt: skip
    rows = {row["id"]: dict(row) for row in session.execute(sa.select(*columns).where(Chunk.id.in_(ids))).mappings()}
    for result in results:
        chunks = shown.get(int(result["document_id"]), [])
        result["chunks"] = [_chunk(rows[key], terms, score) for key, score in chunks if key in rows]


def place_of(chunk_id: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return {id, ordinal, start, end, page, headings}; start and end are characters of the version's stored text."""
    return {
        "id": str(chunk_id),
        "ordinal": row["ordinal"],
        "start": row["span_start"],
        "end": row["span_end"],
        "page": row["page"],
        "headings": row["headings"],
    }


def _chunk(row: Mapping[str, Any], terms: Sequence[int], score: float) -> dict[str, Any]:
    shown = snippet(row["text"], terms, row["language"])
    return place_of(row["id"], row) | {
        "text": row["text"],
        "snippet": shown.text,
        "snippet_start": row["span_start"] + shown.start,
        "highlights": [list(span) for span in shown.highlights],
        "score": round(score, 4),
    }
