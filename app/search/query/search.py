"""The read side: a question to an answer with texts, snippets, scores and a cursor."""

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
from app.search.engines.base import Ask, Filters, Found, Mode, Model, Size
from app.search.index.generations import active, embedder_of
from app.search.query import operators
from app.search.query.all_chunks import add_chunks
from app.search.query.operators import Asked
from app.search.query.question import Question, checked, cursor, opened
from app.search.query.results import results
from app.search.query.similar import mean_vector
from app.search.text.analyzer import without_stop_words
from app.search.text.phrases import MOST_CANDIDATES, with_phrases
from app.search.text.typos import corrected

log = get_logger(__name__)

# A model that reads sentences knows more than averaged words do: the best of 1 to 3 on both collections with MiniLM.
SENTENCE_WEIGHT = 1.75
READS = 3


async def search(tenant: str, question: Question) -> dict[str, Any]:
    """{results, total, query, corrected_query, mode, limit, offset, next_cursor, has_more, as_of, degraded, facets}.

    The results best first. Where no document has any of the words, they are looked for as they may have been meant:
    `corrected_query` is then what was found. Where meaning cannot be had now, a hybrid search goes by words and says so
    in `degraded`. Raises InvalidInput for a query, page or cursor that cannot be,
    Unavailable where the engine cannot answer now.
    """
    checked(question)
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
    shown = results(session, ask.tenant, found)
    if question.all_chunks:
        add_chunks(session, ask, found.terms, shown)
    end = found.offset + len(found.hits)
    more = bool(found.hits) and end < found.total
    answer = {
        "results": shown,
        "total": found.total,
        "query": question.query,
        "corrected_query": None,
        "mode": question.mode,
        "limit": question.limit,
        "offset": found.offset,
        "next_cursor": cursor(question, end, found.hits[-1]) if more else None,
        "has_more": more,
        "as_of": found.as_of,
        "degraded": [ask.degraded] if ask.degraded else [],
        "facets": {
            name: [{"value": value, "count": count} for value, count in values] for name, values in found.facets.items()
        },
    }
    return answer, found.exact, len(shown) == len(found.hits)


async def ask_of(tenant: str, question: Question, asked: Asked | None = None, model: Model | None = None) -> Ask:
    """The question as engines take it: its vector made, its phrases looked up. `model`: by default the one in use."""
    asked = asked or operators.parse(question.query)
    after, offset = opened(question)
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
