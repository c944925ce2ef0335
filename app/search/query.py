"""The read side: a question to an answer with texts, snippets, scores and a cursor."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import read
from app.core.errors import InvalidInput
from app.core.settings import get_settings
from app.search.analyzer import without_stop_words
from app.search.embed import Vectors, embedder
from app.search.engines.embedded import engine_of
from app.search.engines.face import DEFAULT_FUSION, Ask, Filters, Fusion, Hit, Mode, Model, Size
from app.search.models import Chunk, document
from app.search.snippets import snippet

LONGEST_QUERY = 4096
LARGEST_PAGE = 100
READS = 3

_DOCUMENT = (
    "url", "canonical_url", "domain", "title", "description", "language", "country", "is_mobile", "tags", "metadata",
    "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller asks; `cursor` is the one of the page before and wins over the offset."""

    query: str
    mode: Mode = "hybrid"
    filters: Filters = field(default_factory=Filters)
    limit: int = 10
    offset: int = 0
    cursor: str | None = None
    fusion: Fusion = DEFAULT_FUSION


async def search(tenant: str, question: Question) -> dict[str, Any]:
    """{results, total, query, mode, limit, offset, next_cursor, has_more}, the results best first.

    Raises InvalidInput for a query, page or cursor that cannot be.
    """
    _check(question)
    question = replace(question, query=question.query.encode("utf-8", "replace").decode())
    for _ in range(READS - 1):
        answer, whole = await read(answer_once, tenant, question)
        if whole:
            return answer
    return (await read(answer_once, tenant, question))[0]


async def stats(tenant: str) -> Size:
    """How much of this tenant can be found now."""
    return await read(size, tenant)


def size(session: Session, tenant: str) -> Size:
    return engine_of(session).size(session, tenant, _model())


def answer_once(session: Session, tenant: str, question: Question) -> tuple[dict[str, Any], bool]:
    """The answer, and whether the texts of all hits were there: a document may be replaced between the two reads."""
    ask = ask_of(tenant, question)
    found = engine_of(session).search(session, ask)
    rows = _rows(session, tenant, found.hits)
    results = [
        _result(hit, row, found.terms) for hit in found.hits if (row := rows.get((hit.document_id, hit.chunk_id)))
    ]
    end = found.offset + len(found.hits)
    more = bool(found.hits) and end < found.total
    answer = {
        "results": results,
        "total": found.total,
        "query": question.query,
        "mode": question.mode,
        "limit": question.limit,
        "offset": found.offset,
        "next_cursor": _cursor(question, end, found.hits[-1]) if more else None,
        "has_more": more,
    }
    return answer, len(results) == len(found.hits)


def ask_of(tenant: str, question: Question) -> Ask:
    """The question as engines take it, its vector made."""
    after, offset = _opened(question)
    return Ask(
        tenant=tenant,
        query=question.query,
        vector=None if question.mode == "keyword" else _vector(question),
        model=_model(),
        mode=question.mode,
        filters=question.filters,
        limit=question.limit,
        offset=offset,
        after=after,
        fusion=question.fusion,
        rrf_k=get_settings().search_rrf_k,
    )


def _check(question: Question) -> None:
    if len(question.query) > LONGEST_QUERY:
        raise InvalidInput(f"query: at most {LONGEST_QUERY} characters, this has {len(question.query)}")
    if not 1 <= question.limit <= LARGEST_PAGE:
        raise InvalidInput(f"limit: from 1 to {LARGEST_PAGE}, not {question.limit}")
    if question.offset < 0:
        raise InvalidInput(f"offset: 0 or more, not {question.offset}")
    _opened(question)


def _vector(question: Question) -> Vectors:
    model = embedder()
    text = question.query
    if model.bag_of_words:
        text = without_stop_words(text, question.filters.language)
    return model.embed_query(text)


def _model() -> Model:
    return Model(embedder().name, embedder().dimension)


def _rows(session: Session, tenant: str, hits: Sequence[Hit]) -> dict[tuple[int, int], Mapping[str, Any]]:
    if not hits:
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
        .where(Chunk.tenant == tenant, Chunk.id.in_([hit.chunk_id for hit in hits]))
    )
    return {(row["document_id"], row["chunk_id"]): dict(row) for row in session.execute(query).mappings()}


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
        "highlights": [list(span) for span in shown.highlights],
        "scores": {
            "keyword": hit.keyword,
            "semantic": hit.semantic,
            "keyword_rank": hit.keyword_rank,
            "semantic_rank": hit.semantic_rank,
        },
        "chunk": {
            "id": str(hit.chunk_id),
            "ordinal": row["ordinal"],
            "start": row["span_start"],
            "end": row["span_end"],
            "page": row["page"],
            "headings": row["headings"],
        },
    }


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's own metadata, and over it what clients of the old service read there."""
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


def _digest(question: Question) -> str:
    asked = [question.query, question.mode, question.fusion, asdict(question.filters)]
    return hashlib.blake2b(json.dumps(asked, default=str).encode(), digest_size=8).hexdigest()


def _cursor(question: Question, offset: int, last: Hit) -> str:
    text = json.dumps([_digest(question), offset, last.score, last.document_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _opened(question: Question) -> tuple[tuple[float, int] | None, int]:
    """The hit to go on behind, if any, and the offset."""
    if question.cursor is None:
        return None, question.offset
    try:
        text = base64.urlsafe_b64decode(question.cursor + "=" * (-len(question.cursor) % 4))
        digest, offset, score, document_id = json.loads(text)
        after = float(score), int(document_id)
        offset = int(offset)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidInput("cursor: it is none of ours") from error
    if digest != _digest(question) or offset < 0:
        raise InvalidInput("cursor: it belongs to another query")
    return after, offset
