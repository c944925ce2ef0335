"""Read side of search: from a question to an answer with texts, snippets, scores and a cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from app.core.db import read
from app.core.errors import NotFound, OutsideError
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.search.embedders import Vectors
from app.search.engine import engine
from app.search.engines.base import EngineRequest, Filters, Mode, Model, SearchResult, Size
from app.search.engines.source import has_outdated
from app.search.index.generations import active, embedder_of
from app.search.query import operators
from app.search.query.all_chunks import add_chunks
from app.search.query.operators import ParsedQuery
from app.search.query.question import Question, check_question, cursor, read_cursor
from app.search.query.results import results
from app.search.query.similar import mean_vector
from app.search.text.analyzer import without_stop_words
from app.search.text.phrases import MAX_CANDIDATES, filter_by_phrases
from app.search.text.typos import correct

log = get_logger(__name__)

# A model that reads sentences knows more than averaged words do: the best of 1 to 3 on both collections with MiniLM.
WORD_VECTOR_WEIGHT, SENTENCE_WEIGHT = 1.4, 3.0
# A cosine below which a hit by meaning alone is weak: nine in ten relevant documents of both collections are above.
WORD_VECTOR_WEAK, SENTENCE_WEAK = 0.35, 0.3
READS = 3
OUTDATED = "words of some documents may be missed: they are analysed again after an update of the program"


async def search(tenant: str, question: Question) -> dict[str, Any]:
    """Return {results, total, query, corrected_query, words_matched, operators, relaxed, mode, limit, offset,
    next_cursor, has_more, as_of, degraded, facets}.

    Results are best first. If no document has any of the words, their typos are corrected: `corrected_query` is then
    the query that was searched. `words_matched` is False if no document has a word of the searched query, `operators`
    is False if the query was read as text alone, and `relaxed` are its phrases that no document has. If meaning is
    unavailable, a hybrid search uses words only and states the reason in `degraded`.
    Raises InvalidInput for an invalid query, page or cursor, Unavailable if the engine cannot answer now.
    """
    check_question(question)
    question = replace(question, query=question.query.encode("utf-8", "replace").decode())
    asked = _parse(question)
    answer, exact = await _answer(tenant, question, asked)
    if exact or question.mode == "semantic":
        return answer
    meant = await _correct(tenant, asked)
    if meant is None:
        return answer
    return (await _answer(tenant, question, replace(asked, text=meant)))[0] | {"corrected_query": meant}


async def similar(
    tenant: str, document_id: int, *, limit: int, within: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Return the documents nearest in meaning to this one, best first, as search results; none if it has no vectors.

    `within` limits the collections.
    """
    model = await active()
    vector = await read(mean_vector, tenant, document_id, model)
    if vector is None:
        return []
    filters = Filters(not_ids=(document_id,), collection_ids=within)
    ask = EngineRequest(
        tenant, "", vector, model, mode="semantic", filters=filters, limit=limit, weak_below=_weak_similarity(model)
    )
    answer, _, _ = await engine().search(ask, partial(_shape, ask, Question("", mode="semantic", limit=limit)))
    results: list[dict[str, Any]] = answer["results"]
    return results


async def stats(tenant: str) -> Size:
    """Return the size of the tenant's index."""
    return await engine().size(tenant, await active())


async def _answer(tenant: str, question: Question, asked: ParsedQuery) -> tuple[dict[str, Any], int]:
    """Return the answer, and the number of documents with any of the words."""
    ask = await make_request(tenant, question, asked)
    for _ in range(READS - 1):
        answer, exact, whole = await engine().search(ask, partial(_shape, ask, question))
        if whole:
            break
    else:
        answer, exact, _ = await engine().search(ask, partial(_shape, ask, question))
    return answer, exact


def _shape(
    ask: EngineRequest, question: Question, session: Session, result: SearchResult
) -> tuple[dict[str, Any], int, bool]:
    """Return the answer, the number of exact matches, and True if the texts of all hits existed.

    A document may be replaced between the engine's read and this one.
    """
    shown = results(session, ask, result)
    if question.all_chunks:
        add_chunks(session, ask, result.terms, shown)
    end = result.offset + len(result.hits)
    more = bool(result.hits) and end < result.total
    answer = {
        "results": shown,
        "total": result.total,
        "query": question.query,
        "corrected_query": None,
        "words_matched": None if ask.mode == "semantic" else result.exact > 0,
        "operators": operators.has_operators(question.query, question.operators),
        "relaxed": list(ask.relaxed),
        "mode": question.mode,
        "limit": question.limit,
        "offset": result.offset,
        "next_cursor": cursor(question, end, result.hits[-1]) if more else None,
        "has_more": more,
        "as_of": result.as_of,
        "degraded": _degraded(session, ask, result),
        "facets": {
            name: [{"value": value, "count": count} for value, count in values]
            for name, values in result.facets.items()
        },
    }
    return answer, result.exact, len(shown) == len(result.hits)


def _degraded(session: Session, ask: EngineRequest, result: SearchResult) -> list[str]:
    reasons = [ask.degraded] if ask.degraded else []
    if ask.mode != "semantic" and (result.outdated or has_outdated(session, ask.tenant)):
        reasons.append(OUTDATED)
    return reasons


async def make_request(
    tenant: str, question: Question, asked: ParsedQuery | None = None, model: Model | None = None
) -> EngineRequest:
    """Return the engine's request for a question: with vector and phrases. `model` defaults to the searched one."""
    asked = asked or _parse(question)
    after, offset = read_cursor(question)
    filters = question.filters
    if asked.site is not None:
        filters = replace(filters, site=asked.site)
    if asked.language is not None:
        filters = replace(filters, language=asked.language)
    model = model or await active()
    vector, degraded = await _meaning(model, question.mode, asked.text, filters.language)
    ask = EngineRequest(
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
        weak_below=_weak_similarity(model),
        excluded=asked.without,
        facets=question.facets,
    )
    if asked.phrases:
        ids, relaxed = await _require_phrases(ask, asked.phrases)
        ask = replace(ask, relaxed=relaxed)
        if ids:
            ask = replace(ask, filters=replace(ask.filters, document_ids=ids))
    if asked.without_phrases:
        ids = [document_id for phrase in asked.without_phrases for document_id in await _with_phrases(ask, (phrase,))]
        ask = replace(ask, filters=replace(ask.filters, not_ids=[*ask.filters.not_ids, *ids]))
    return ask


def _parse(question: Question) -> ParsedQuery:
    if operators.has_operators(question.query, question.operators):
        return operators.parse(question.query)
    return ParsedQuery(question.query)


async def _require_phrases(ask: EngineRequest, phrases: Sequence[str]) -> tuple[list[int], Sequence[str]]:
    """Return the documents with the phrases, and the phrases that no document has; then the others are required.

    If no document has all the others, none is required.
    """
    ids = await _with_phrases(ask, phrases)
    if ids or len(phrases) == 1:
        return ids, () if ids else phrases
    required = [phrase for phrase in phrases if await _with_phrases(ask, (phrase,))]
    if 0 < len(required) < len(phrases):
        ids = await _with_phrases(ask, required)
    return ids, [phrase for phrase in phrases if not ids or phrase not in required]


async def _with_phrases(ask: EngineRequest, phrases: Sequence[str]) -> list[int]:
    ids = await engine().matching(replace(ask, query=" ".join(phrases), required=phrases), MAX_CANDIDATES)
    return await read(filter_by_phrases, ask.tenant, ids, phrases)


async def _correct(tenant: str, asked: ParsedQuery) -> str | None:
    """Return the corrected text if a word of it is in no document."""
    model = await active()
    languages = [asked.language] if asked.language else await engine().languages(tenant, model)
    return await correct(asked.text, languages, partial(engine().known, tenant, model))


def _semantic_weight(model: Model) -> float:
    """Return the weight of meaning relative to words: the settings' value, else the quality table's for its type."""
    weight = get_settings().search_semantic_weight
    if weight is not None:
        return weight
    return WORD_VECTOR_WEIGHT if _has_word_vectors(model) else SENTENCE_WEIGHT


def _weak_similarity(model: Model) -> float:
    """Return the cosine below which a hit by meaning alone is weak: the settings' value, else that of its type."""
    weak = get_settings().search_weak_similarity
    if weak is not None:
        return weak
    return WORD_VECTOR_WEAK if _has_word_vectors(model) else SENTENCE_WEAK


def _has_word_vectors(model: Model) -> bool:
    return model.generation.startswith("wordllama/")


async def _meaning(model: Model, mode: Mode, text: str, language: str | None) -> tuple[Vectors | None, str | None]:
    """Return the query's vector, if it has one, and the reason why a hybrid search does without it."""
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
