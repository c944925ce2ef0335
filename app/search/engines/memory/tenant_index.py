"""One tenant's in-memory index: columns of documents, postings, and a matrix of chunk vectors.

A document has a slot and a contiguous range of chunks. Removed documents are only marked dead until a rebuild.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from app.search.embedders import Vectors
from app.search.engines.base import MAX_LANGUAGES, EngineRequest, Filters, Hit, IndexedState, SearchResult
from app.search.engines.best_chunk import BestChunk
from app.search.engines.memory.bm25 import Bm25
from app.search.engines.memory.columns import NO_DATE, CodedColumn, Facets
from app.search.engines.memory.growable_array import GrowableArray
from app.search.engines.memory.vectors import VectorRows
from app.search.engines.ranking import Order, Ranking
from app.search.engines.source import IndexedDocument
from app.search.text.analyzer import query_terms, typed_variants, word_variants

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class MemoryIndex:
    """Not thread-safe: callers hold their engine's lock."""

    def __init__(self, dimension: int) -> None:
        self.bm25 = Bm25()
        self.languages: Counter[str] = Counter()
        self._language_of: list[str | None] = []
        self._slot_of: dict[int, int] = {}
        self._ids = GrowableArray(np.int64)
        self._columns = {name: CodedColumn() for name in ("domain", "language", "country", "source")}
        self._is_mobile = GrowableArray(np.bool_)
        self._fetched_at = GrowableArray(np.float64)
        self._collection = GrowableArray(np.int64)
        self._tagged: defaultdict[str, list[int]] = defaultdict(list)
        self._facets = Facets(self._columns, self._collection, self._tagged)
        self._first_chunk = GrowableArray(np.int64)
        self._chunk_ids = GrowableArray(np.int64)
        self._chunk_terms: list[bytes] = []
        self._vectors = VectorRows(dimension)
        self._has_vector = GrowableArray(np.bool_)
        self._blank = bytes(4 * dimension)
        self.documents = self.chunks = self.vectors = 0

    @property
    def dead(self) -> int:
        """Return the number of dead chunks."""
        return len(self._chunk_ids) - self.chunks

    def put(self, documents: Iterable[IndexedDocument]) -> None:
        """Replace each document by its current state; one without chunks is dropped."""
        terms: list[bytes] = []
        slot = self.bm25.slots
        for document in documents:
            self.drop(document.id)
            if document.chunks:
                self._append(document)
                self._slot_of[document.id] = slot + len(terms)
                terms.append(document.terms)
        self.bm25.add_many(terms)

    def drop(self, document_id: int) -> None:
        slot = self._slot_of.pop(document_id, None)
        if slot is None:
            return
        self.bm25.remove(slot)
        first, last = self._span(slot)
        self.documents -= 1
        self.chunks -= last - first
        self.vectors -= int(self._vectors.view[first:last].any(axis=1).sum())
        language = self._language_of[slot]
        if language:
            self.languages[language] -= 1

    def search(self, ask: EngineRequest, *, as_of: int = 0) -> SearchResult:
        """Return the requested page of hits; `as_of` is the last change the index has read."""
        terms = {} if ask.mode == "semantic" else self.terms_of(ask.query, ask.filters)
        allowed = self._allowed(ask)
        rankings: dict[str, Ranking] = {}
        if ask.mode != "semantic":
            scores, matched = self.bm25.match(terms)
            rankings["keyword"] = Ranking(scores, matched & allowed, self._ids.view)
        if ask.mode != "keyword" and ask.vector is not None:
            matched = allowed & self._has_vector.view if ask.vector.any() else np.zeros_like(allowed)
            cosines = self._similarity(ask.vector, matched)
            rankings["semantic"] = Ranking(cosines, matched, self._ids.view, are_cosines=True)
        order = Order(list(rankings.values()), ask.fusion, ask.rrf_k, ask.weights(list(rankings)))
        page, offset = order.page(ask.limit, ask.offset, ask.after)
        best = BestChunk([*terms], ask.vector, self.bm25.weight)
        facets = self._facets.count(ask.facets, order.matched)
        exact = int(rankings["keyword"].matched.sum()) if "keyword" in rankings else 0
        return SearchResult(
            self._hits(page, rankings, best), order.total, [*terms], offset, exact, as_of, facets=facets
        )

    def matching(self, ask: EngineRequest, most: int) -> list[int]:
        """Return ids of the documents that match filters and words, best keyword score first."""
        scores, _ = self.bm25.match(self.terms_of(ask.query, ask.filters))
        slots, _ = Ranking(scores, self._allowed(ask), self._ids.view).best(most)
        ids: list[int] = self._ids.view[slots].tolist()
        return ids

    def held(self, first: int, last: int) -> dict[int, IndexedState]:
        """Return the state of the documents with these ids."""
        states = {}
        for document_id, slot in self._slot_of.items():
            if first <= document_id <= last:
                begin, end = self._span(slot)
                ids = self._chunk_ids.view[begin:end].tolist()
                known = np.flatnonzero(self._vectors.view[begin:end].any(axis=1)).tolist()
                having = frozenset(ids[place] for place in known)
                states[document_id] = IndexedState(frozenset(ids), having, self.bm25.postings_of(slot))
        return states

    def terms_of(self, query: str, filters: Filters) -> dict[int, float]:
        return query_terms(query, self._query_languages(filters))

    def _query_languages(self, filters: Filters) -> list[str]:
        """Return the languages that a query may be in."""
        return [filters.language] if filters.language else self.list_languages()

    def list_languages(self) -> list[str]:
        """Return the languages of the documents, the commonest first."""
        return [language for language, count in self.languages.most_common(MAX_LANGUAGES) if count > 0]

    def _append(self, document: IndexedDocument) -> None:
        slot = len(self._ids)
        self._ids.append(document.id)
        for name, column in self._columns.items():
            column.append(getattr(document, name))
        self._is_mobile.append(document.is_mobile)
        self._fetched_at.append(document.fetched_at.timestamp() if document.fetched_at else NO_DATE)
        self._collection.append(-1 if document.collection_id is None else document.collection_id)
        for tag in set(document.tags):
            self._tagged[tag].append(slot)
        self._first_chunk.append(len(self._chunk_ids))
        self._chunk_ids.extend([chunk.id for chunk in document.chunks])
        self._chunk_terms.extend(chunk.terms for chunk in document.chunks)
        rows = b"".join(chunk.vector or self._blank for chunk in document.chunks)
        matrix = np.frombuffer(rows, "<f4").reshape(len(document.chunks), -1)
        self._vectors.extend(matrix)
        self.documents += 1
        self.chunks += len(document.chunks)
        known = int(matrix.any(axis=1).sum())
        self.vectors += known
        self._has_vector.append(known > 0)
        language = document.chunks[0].language
        self._language_of.append(language)
        if language:
            self.languages[language] += 1

    def _span(self, slot: int) -> tuple[int, int]:
        starts = self._first_chunk.view
        return int(starts[slot]), int(starts[slot + 1]) if slot + 1 < len(starts) else len(self._chunk_ids)

    def _allowed(self, ask: EngineRequest) -> Bools:
        allowed: Bools = self.bm25.alive.copy()
        self._narrow(allowed, ask.filters)
        if ask.required or ask.excluded:
            spoken = self._query_languages(ask.filters)
            for text in ask.required:
                allowed &= self._having(word_variants(text, spoken))
            for text in ask.excluded:
                allowed &= ~self._having(typed_variants(text, spoken))
        return allowed

    def _having(self, words: Sequence[Sequence[int]]) -> Bools:
        """Return True where a document has each of the words, in any of its forms."""
        having = np.ones(len(self._ids), np.bool_)
        for variants in words:
            having &= self.bm25.having(variants)
        return having

    def _narrow(self, allowed: Bools, filters: Filters) -> None:
        for name, column in self._columns.items():
            value = getattr(filters, name)
            if value is not None:
                allowed &= column.speaks(value) if name == "language" else column.equals(value)
        if filters.site is not None:
            allowed &= self._columns["domain"].within(filters.site)
        if filters.is_mobile is not None:
            allowed &= self._is_mobile.view == filters.is_mobile
        if filters.since is not None:
            allowed &= self._fetched_at.view >= filters.since.timestamp()
        if filters.until is not None:
            allowed &= (self._fetched_at.view < filters.until.timestamp()) & (self._fetched_at.view > NO_DATE)
        if filters.collection_ids is not None:
            allowed &= np.isin(self._collection.view, np.asarray(filters.collection_ids, np.int64))
        for tag in filters.tags:
            allowed &= self._only(self._tagged.get(tag, []))
        if filters.document_ids is not None:
            allowed &= self._only(self._slots_of(filters.document_ids))
        if filters.not_ids:
            allowed &= ~self._only(self._slots_of(filters.not_ids))

    def _slots_of(self, ids: Sequence[int]) -> list[int]:
        return [slot for value in set(ids) if (slot := self._slot_of.get(value)) is not None]

    def _only(self, slots: Sequence[int]) -> Bools:
        only = np.zeros(len(self._ids), np.bool_)
        only[np.asarray(slots, np.int64)] = True
        return only

    def _similarity(self, vector: Vectors, allowed: Bools) -> Floats:
        """Return the cosine of each document's best chunk; undefined where a document is not allowed."""
        starts = self._first_chunk.view
        if not len(starts):
            return np.zeros(0)
        sizes = np.diff(starts, append=len(self._chunk_ids))
        nearness = self._vectors.nearness(vector, np.repeat(allowed, sizes))
        return np.maximum.reduceat(nearness, starts).astype(np.float64)

    def _hits(self, page: Sequence[tuple[int, float]], rankings: dict[str, Ranking], best: BestChunk) -> list[Hit]:
        keyword, semantic = rankings.get("keyword"), rankings.get("semantic")
        spans = [self._span(slot) for slot, _ in page]
        rows = best.choose(spans, self._chunk_terms, self._vectors.view)
        return [
            Hit(
                document_id=int(self._ids.view[slot]),
                chunk_id=int(self._chunk_ids.view[row]),
                score=score,
                keyword=keyword.score(slot) if keyword else None,
                semantic=semantic.score(slot) if semantic else None,
                keyword_rank=keyword.rank(slot) if keyword else None,
                semantic_rank=semantic.rank(slot) if semantic else None,
            )
            for (slot, score), row in zip(page, rows, strict=True)
        ]
