"""The engine in a Qdrant server or cluster, kept up to date by a job (follower.py).

Keyword scores are per document, as in the embedded engine; meaning is scored per chunk. Both rankings are fetched to a
fixed depth at once, completed with each other's documents, and fused here by the same rules. Fusion by the server would
treat a document's words and its best chunk as two points.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from qdrant_client import models
from sqlalchemy.orm import Session

from app.clients.qdrant import close_qdrant
from app.core.db import read
from app.core.errors import InvalidInput, NotFound, Unavailable
from app.jobs.worker.progress import Progress
from app.search.engines.base import MAX_LANGUAGES, EngineRequest, Hit, IndexedState, Lag, Model, SearchResult, Size
from app.search.engines.best_chunk import ranked_chunks
from app.search.engines.qdrant import points as shape
from app.search.engines.qdrant.follower import follow
from app.search.engines.qdrant.reader import Conditions, QdrantReader, Scores, name_of
from app.search.engines.qdrant.writer import QdrantWriter
from app.search.engines.ranking import Order, Ranking
from app.search.engines.source import counter, lag
from app.search.text.analyzer import ANALYZER_VERSION, query_terms, typed_variants, word_variants

K = TypeVar("K")
T = TypeVar("T")

# Depths to which a ranking is fetched: the first that holds the page several times.
DEPTHS = (50, 250, 1_000, 4_000, 10_000)
SPARE = 5
# Documents that a -word may remove from a semantic search; chunks do not hold all words of their document.
MAX_EXCLUDED_DOCUMENTS = 20_000
KNOWN_SAMPLE = 200


class QdrantEngine:
    """Stateless: all state is in Qdrant."""

    name = "qdrant"

    async def search(self, ask: EngineRequest, then: Callable[[Session, SearchResult], T]) -> T:
        result = await _built(_search(ask), SearchResult([], 0, []))
        return await read(lambda session: then(session, _with_best_chunks(session, ask, result)))

    async def matching(self, ask: EngineRequest, most: int) -> list[int]:
        return await _built(_matching(ask, most), [])

    async def known(self, tenant: str, model: Model, hashes: Sequence[int]) -> dict[int, int]:
        return await _built(QdrantReader(name_of(model)).known(tenant, hashes, KNOWN_SAMPLE), {}) if hashes else {}

    async def languages(self, tenant: str, model: Model) -> list[str]:
        return await _built(QdrantReader(name_of(model)).list_languages(tenant, MAX_LANGUAGES), [])

    async def size(self, tenant: str, model: Model) -> Size:
        place, whole = QdrantReader(name_of(model)), [shape.has("tenant", tenant)]
        counts = asyncio.gather(
            place.count(models.Filter(must=[*whole, shape.has("head", True)])),
            place.count(models.Filter(must=whole)),
            place.count(models.Filter(must=[*whole, shape.has("dense", True)])),
            place.at(),
        )
        return Size(self.name, *await _built(counts, [0, 0, 0, 0]))

    async def lag(self, model: Model) -> Lag:
        try:
            at = await QdrantReader(name_of(model)).at()
        except NotFound:  # not built yet
            at = 0
        return await read(lag, at)

    async def held(self, tenant: str, model: Model, first: int, last: int) -> dict[int, IndexedState]:
        return await _built(QdrantReader(name_of(model)).held(tenant, first, last), {})

    async def follow(self, model: Model, progress: Progress) -> dict[str, Any]:
        return await follow(model, progress)

    async def forget(self, model: Model) -> None:
        await QdrantWriter.forget(model)

    async def close(self) -> None:
        await close_qdrant()


async def _built(answer: Awaitable[T], nothing: T) -> T:
    """Return the answer; `nothing` if there is nothing to index. Raises Unavailable while the index is being built."""
    try:
        return await answer
    except NotFound as error:
        if (await read(counter))[0] == 0:
            return nothing
        raise Unavailable("the search index is being built", code="index_building", retry_after_s=5) from error


@dataclass(frozen=True, slots=True)
class _Terms:
    """The weights of the scored terms of a query, and conditions for what a document must and must not have."""

    scored: dict[int, float]
    required: Conditions
    excluded: Conditions


async def _terms(place: QdrantReader, ask: EngineRequest) -> _Terms:
    if ask.mode == "semantic" and not ask.excluded and not ask.required:
        return _Terms({}, [], [])
    language = ask.filters.language
    spoken = [language] if language else await place.list_languages(ask.tenant, MAX_LANGUAGES)

    def having(words: Sequence[Sequence[int]]) -> Conditions:
        return [shape.has_any("terms", variants) for variants in words]

    return _Terms(
        {} if ask.mode == "semantic" else query_terms(ask.query, spoken),
        [condition for text in ask.required for condition in having(word_variants(text, spoken))],
        [models.Filter(must=words) for text in ask.excluded if (words := having(typed_variants(text, spoken)))],
    )


async def _matching(ask: EngineRequest, most: int) -> list[int]:
    place = QdrantReader(name_of(ask.model))
    terms = await _terms(place, replace(ask, mode="keyword"))
    heads = _heads(ask, terms)
    scores = await place.by_words(ask.tenant, terms.scored, heads, most) if terms.scored else {}
    rest = await place.documents(heads, most) if len(scores) < most else []  # allowed, but without a scored word
    return list(dict.fromkeys([*scores, *rest]))[:most]


async def _search(ask: EngineRequest) -> SearchResult:
    if ask.filters.document_ids is not None and not ask.filters.document_ids:
        return SearchResult([], 0, [])
    place = QdrantReader(name_of(ask.model))
    terms = await _terms(place, ask)
    heads, depth = _heads(ask, terms), _depth(ask)
    near = ask.mode != "keyword" and ask.vector is not None and bool(ask.vector.any())
    matched = _matched(heads, [*terms.scored], near)
    requests = {"keyword": _by_words(place, ask, terms, heads, depth)} if ask.mode != "semantic" else {}
    if ask.mode != "keyword":
        requests["semantic"] = _by_meaning(place, ask, heads, terms, depth if near else 0)
    tell = asyncio.gather(place.count(matched), place.marker())
    rankings, (total, marker), facets = await asyncio.gather(
        _all(requests), tell, _all({name: place.facet(name, matched) for name in ask.facets})
    )
    if total > depth and ask.offset + ask.limit > depth:
        raise InvalidInput(f"offset: this engine pages through the first {depth:,} documents", code="page_too_deep")
    exact = len(rankings.get("keyword", ()))
    await _complete(place, ask, heads, terms, rankings, depth)
    hits, offset = _page(ask, rankings)
    marker = marker or {}
    outdated = marker.get("analyzer") != ANALYZER_VERSION
    return SearchResult(hits, total, [*terms.scored], offset, exact, int(marker.get("change", 0)), outdated, facets)


def _depth(ask: EngineRequest) -> int:
    needed = ask.offset + ask.limit * (2 if ask.after else 1)
    return next((depth for depth in DEPTHS if SPARE * needed <= depth), DEPTHS[-1])


def _heads(ask: EngineRequest, terms: _Terms) -> models.Filter:
    """Return a filter for the head points of the documents that may match."""
    must, must_not = shape.narrowed(ask)
    return models.Filter(must=[*must, shape.has("head", True), *terms.required], must_not=[*must_not, *terms.excluded])


def _matched(heads: models.Filter, terms: Sequence[int], near: bool) -> models.Filter:
    """Narrow the filter to heads that have a term, or, if `near`, any vector."""
    either: Conditions = [shape.has_any("terms", sorted(set(terms)) or [-1])]
    if near:
        either.append(shape.has("embedded", True))
    return models.Filter(must=heads.must, must_not=heads.must_not, should=either)


async def _by_words(place: QdrantReader, ask: EngineRequest, terms: _Terms, heads: models.Filter, most: int) -> Scores:
    return await place.by_words(ask.tenant, terms.scored, heads, most) if terms.scored and most else {}


async def _by_meaning(
    place: QdrantReader,
    ask: EngineRequest,
    heads: models.Filter,
    terms: _Terms,
    most: int,
    only: Sequence[int] | None = None,
) -> Scores:
    """Rank by meaning; `only` limits the documents."""
    if not most or ask.vector is None:
        return {}
    must, must_not = shape.narrowed(ask)
    if terms.excluded:
        without = models.Filter(must=heads.must, should=terms.excluded)
        ids = await place.documents(without, MAX_EXCLUDED_DOCUMENTS + 1)
        if len(ids) > MAX_EXCLUDED_DOCUMENTS:
            raise InvalidInput("an excluded word is in too many documents", code="excluded_too_common")
        must_not = [*must_not, shape.has_any("document", ids)] if ids else must_not
    if only is not None:
        must = [*must, shape.has_any("document", only)]
    chunks = models.Filter(must=[*must, shape.has("dense", True)], must_not=must_not)
    return await place.by_meaning(ask.vector, chunks, most)


async def _complete(
    place: QdrantReader,
    ask: EngineRequest,
    heads: models.Filter,
    terms: _Terms,
    rankings: dict[str, Scores],
    depth: int,
) -> None:
    """Give the documents of each ranking their scores in the other one, if that was cut at its depth."""
    if len(rankings) < 2:
        return
    words, near = rankings["keyword"], rankings["semantic"]
    missing_near = [key for key in words if key not in near] if len(near) == depth else []
    missing_words = [key for key in near if key not in words] if len(words) == depth else []
    only = models.Filter(
        must=[*_as_list(heads.must), shape.has_any("document", missing_words)], must_not=heads.must_not
    )
    more_words, more_near = await asyncio.gather(
        _by_words(place, ask, terms, only, len(missing_words)),
        _by_meaning(place, ask, heads, terms, len(missing_near), missing_near),
    )
    words |= more_words
    near |= more_near


def _as_list(conditions: Any) -> Conditions:
    return list(conditions or [])


def _page(ask: EngineRequest, rankings: dict[str, Scores]) -> tuple[list[Hit], int]:
    """Return the hits of the page and its offset; the chunk of each hit is chosen later."""
    ids = np.array(sorted(set().union(*rankings.values())), np.int64)
    ranked = {name: _ranking(scores, ids, are_cosines=name == "semantic") for name, scores in rankings.items()}
    page, offset = Order(list(ranked.values()), ask.fusion, ask.rrf_k, ask.weights(list(ranked))).page(
        ask.limit, ask.offset, ask.after
    )
    parts = {name: (ranked[name].score, ranked[name].rank) for name in ranked}
    hits = []
    for slot, score in page:
        values: dict[str, Any] = {}
        for name, (of, rank) in parts.items():
            values |= {name: of(slot), f"{name}_rank": rank(slot)}
        hits.append(Hit(document_id=int(ids[slot]), chunk_id=0, score=score, **values))
    return hits, offset


def _ranking(scores: Scores, ids: np.ndarray[Any, np.dtype[np.int64]], *, are_cosines: bool) -> Ranking:
    matched = np.array([key in scores for key in ids.tolist()], np.bool_)
    values = np.array([scores.get(key, 0.0) for key in ids.tolist()], np.float64)
    return Ranking(values, matched, ids, are_cosines=are_cosines)


def _with_best_chunks(session: Session, ask: EngineRequest, result: SearchResult) -> SearchResult:
    """Set the chunk to show of each hit, from SQL; a deleted document gets none."""
    best = ranked_chunks(session, ask, result.terms, [hit.document_id for hit in result.hits])
    first = {document_id: chunks[0][0] for document_id, chunks in best.items()}
    return replace(result, hits=[replace(hit, chunk_id=first.get(hit.document_id, 0)) for hit in result.hits])


async def _all(requests: Mapping[K, Awaitable[T]]) -> dict[K, T]:
    """Await all answers concurrently."""
    answers: Iterable[T] = await asyncio.gather(*requests.values())
    return dict(zip(requests, answers, strict=True))
