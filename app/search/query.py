"""The read side: a question to an answer with texts, snippets, scores and a cursor."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import read
from app.core.errors import InvalidInput, NotFound, OutsideError
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.search import operators
from app.search.all_chunks import add_chunks, place_of
from app.search.analyzer import without_stop_words
from app.search.embed import Vectors
from app.search.engines.face import DEFAULT_FUSION, Ask, Facet, Filters, Found, Fusion, Hit, Mode, Model, Size
from app.search.engines.opening import engine
from app.search.generations import active, embedder_of
from app.search.models import Chunk, document
from app.search.operators import Asked
from app.search.phrases import MOST_CANDIDATES, with_phrases
from app.search.similar import mean_vector
from app.search.snippets import snippet
from app.search.typos import corrected

log = get_logger(__name__)

LONGEST_QUERY = 4096
# A model that reads sentences knows more than averaged words do: the best of 1 to 3 on both collections with MiniLM.
SENTENCE_WEIGHT = 1.75
LARGEST_PAGE = 100
READS = 3

_DOCUMENT = (
    "url", "canonical_url", "domain", "title", "description", "language", "country", "is_mobile", "tags", "metadata",
    "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller asks; `cursor` is the one of the page before and wins over the offset.

    `query` may hold operators. `all_chunks` shows of each document all that fit and not only the best one.
    """

    query: str
    mode: Mode = "hybrid"
    filters: Filters = field(default_factory=Filters)
    limit: int = 10
    offset: int = 0
    cursor: str | None = None
    fusion: Fusion = DEFAULT_FUSION
    facets: Sequence[Facet] = ()
    all_chunks: bool = False


async def search(tenant: str, question: Question) -> dict[str, Any]:
    """{results, total, query, corrected_query, mode, limit, offset, next_cursor, has_more, as_of, degraded, facets}.

    The results best first. Where no document has any of the words, they are looked for as they may have been meant:
    `corrected_query` is then what was found. Where meaning cannot be had now, a hybrid search goes by words and says so
    in `degraded`. Raises InvalidInput for a query, page or cursor that cannot be,
    Unavailable where the engine cannot answer now.
    """
    _check(question)
    question = replace(question, query=question.query.encode("utf-8", "replace").decode())
    asked = operators.parse(question.query)
    answer, exact = await _answer(tenant, question, asked)
    if exact or question.mode == "semantic":
        return answer
    meant = await _meant(tenant, asked)
    if meant is None:
        return answer
    return (await _answer(tenant, question, replace(asked, text=meant)))[0] | {"corrected_query": meant}


async def similar(
    tenant: str, document_id: int, *, limit: int, within: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """The documents nearest in meaning to this one, best first, as results of a search; none where it has no vectors.

    `within`: of these collections.
    """
    model = await active()
    vector = await read(mean_vector, tenant, document_id, model)
    if vector is None:
        return []
    filters = Filters(not_ids=(document_id,), collection_ids=within)
    ask = Ask(tenant, "", vector, model, mode="semantic", filters=filters, limit=limit)
    answer, _, _ = await engine().search(ask, partial(_shaped, ask, Question("", mode="semantic", limit=limit)))
    found: list[dict[str, Any]] = answer["results"]
    return found


async def stats(tenant: str) -> Size:
    """How much of this tenant can be found now."""
    return await engine().size(tenant, await active())


async def _answer(tenant: str, question: Question, asked: Asked) -> tuple[dict[str, Any], int]:
    """The answer, and how many documents have any of the words."""
    ask = await ask_of(tenant, question, asked)
    for _ in range(READS - 1):
        answer, exact, whole = await engine().search(ask, partial(_shaped, ask, question))
        if whole:
            break
    else:
        answer, exact, _ = await engine().search(ask, partial(_shaped, ask, question))
    return answer, exact


def _shaped(ask: Ask, question: Question, session: Session, found: Found) -> tuple[dict[str, Any], int, bool]:
    """The answer, how many match exactly, and whether the texts of all hits were there: a document may be replaced
    between the engine's read and this one."""
    rows = _rows(session, ask.tenant, [hit.chunk_id for hit in found.hits])
    results = [
        _result(hit, row, found.terms) for hit in found.hits if (row := rows.get(hit.chunk_id, {})) and _fits(hit, row)
    ]
    if question.all_chunks:
        add_chunks(session, ask, found.terms, results)
    end = found.offset + len(found.hits)
    more = bool(found.hits) and end < found.total
    answer = {
        "results": results,
        "total": found.total,
        "query": question.query,
        "corrected_query": None,
        "mode": question.mode,
        "limit": question.limit,
        "offset": found.offset,
        "next_cursor": _cursor(question, end, found.hits[-1]) if more else None,
        "has_more": more,
        "as_of": found.as_of,
        "degraded": [ask.degraded] if ask.degraded else [],
        "facets": {
            name: [{"value": value, "count": count} for value, count in values] for name, values in found.facets.items()
        },
    }
    return answer, found.exact, len(results) == len(found.hits)


def _fits(hit: Hit, row: Mapping[str, Any]) -> bool:
    return bool(row["document_id"] == hit.document_id)


async def ask_of(tenant: str, question: Question, asked: Asked | None = None, model: Model | None = None) -> Ask:
    """The question as engines take it: its vector made, its phrases looked up. `model`: by default the one in use."""
    asked = asked or operators.parse(question.query)
    after, offset = _opened(question)
    filters = question.filters
    if asked.site is not None:
        filters = replace(filters, site=asked.site)
    if asked.language is not None:
        filters = replace(filters, language=asked.language)
    model = model or await active()
    vector, degraded = await _meaning(model, question.mode, asked.text, filters.language)
    ask = Ask(
        tenant=tenant,
        query=asked.text,
        vector=vector,
        model=model,
        mode="keyword" if degraded else question.mode,
        degraded=degraded,
        filters=filters,
        limit=question.limit,
        offset=offset,
        after=after,
        fusion=question.fusion,
        rrf_k=get_settings().search_rrf_k,
        semantic_weight=_semantic_weight(model),
        excluded=asked.without,
        facets=question.facets,
    )
    if asked.phrases:
        ids = await _with_phrases(ask, asked.phrases)
        ask = replace(ask, filters=replace(ask.filters, document_ids=ids))
    if asked.without_phrases:
        ids = [one for phrase in asked.without_phrases for one in await _with_phrases(ask, (phrase,))]
        ask = replace(ask, filters=replace(ask.filters, not_ids=[*ask.filters.not_ids, *ids]))
    return ask


async def _with_phrases(ask: Ask, phrases: Sequence[str]) -> list[int]:
    ids = await engine().matching(replace(ask, query=" ".join(phrases), required=phrases), MOST_CANDIDATES)
    return await read(with_phrases, ask.tenant, ids, phrases)


async def _meant(tenant: str, asked: Asked) -> str | None:
    """The text as it may have been meant, where a word of it is in no document."""
    model = await active()
    languages = [asked.language] if asked.language else await engine().languages(tenant, model)
    return await corrected(asked.text, languages, partial(engine().known, tenant, model))


def _check(question: Question) -> None:
    if len(question.query) > LONGEST_QUERY:
        raise InvalidInput(f"query: at most {LONGEST_QUERY} characters, this has {len(question.query)}")
    if not 1 <= question.limit <= LARGEST_PAGE:
        raise InvalidInput(f"limit: from 1 to {LARGEST_PAGE}, not {question.limit}")
    if question.offset < 0:
        raise InvalidInput(f"offset: 0 or more, not {question.offset}")
    _opened(question)


def _semantic_weight(model: Model) -> float:
    """What meaning counts beside words: the settings' word, else what the quality table says of such a model."""
    said = get_settings().search_semantic_weight
    if said is not None:
        return said
    return 1.0 if model.generation.startswith("wordllama/") else SENTENCE_WEIGHT


async def _meaning(model: Model, mode: Mode, text: str, language: str | None) -> tuple[Vectors | None, str | None]:
    """The question's vector, if it has one; where a hybrid search must do without it, why."""
    if mode == "keyword":
        return None, None
    try:
        return await _vector(model, text, language), None
    except (OutsideError, NotFound) as error:
        if mode == "semantic":
            raise
        log.warning("searched_by_words_alone", reason=error.message)
        return None, f"searched by words alone: {error.message}"


async def _vector(model: Model, text: str, language: str | None) -> Vectors:
    makes = await asyncio.to_thread(embedder_of, model)  # it may have to be loaded
    return await makes.embed_query(without_stop_words(text, language) if makes.bag_of_words else text)


def _rows(session: Session, tenant: str, chunk_ids: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    """By the chunk's id."""
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
