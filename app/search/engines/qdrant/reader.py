"""One index in Qdrant for readers: rankings, counts and the last change read, for filters of points."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from app.clients.qdrant import qdrant
from app.core.settings import get_settings
from app.search.embedders import Vectors
from app.search.engines.base import FACET_VALUES, Facet, IndexedState, Model
from app.search.engines.qdrant import points as shape

Scores = dict[int, float]
Conditions = list[Any]


def name_of(model: Model) -> str:
    """Return the alias of the collection in use; each model has its own."""
    digest = hashlib.blake2b(f"{model.generation} {model.dimension}".encode(), digest_size=4).hexdigest()
    return f"{get_settings().qdrant_collection}-{digest}"


class QdrantReader:
    """Reads one collection. Raises NotFound if it does not exist, Unavailable if Qdrant does not answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._patience_s = math.ceil(get_settings().qdrant_timeout_s)

    async def by_words(self, tenant: str, terms: Mapping[int, float], filter_: models.Filter, most: int) -> Scores:
        """Return the documents with the best keyword scores, best first; rarity is per tenant."""
        corpus = models.Filter(must=[shape.has("tenant", tenant), shape.has("head", True)])
        response = await self._ask(
            "query_points",
            query=shape.question(terms),
            using="words",
            query_filter=filter_,
            search_params=models.SearchParams(idf=models.IdfCorpusParams(corpus=corpus)),
            limit=most,
            with_payload=["document"],
        )
        return {point.payload["document"]: point.score for point in response.points}

    async def by_meaning(self, vector: Vectors, filter_: models.Filter, most: int) -> Scores:
        """Return the documents with the nearest chunks and the cosines, nearest first."""
        response = await self._ask(
            "query_points_groups",
            query=vector.tolist(),
            using="dense",
            query_filter=filter_,
            group_by="document",
            group_size=1,
            limit=most,
            with_payload=False,
        )
        return {int(group.id): group.hits[0].score for group in response.groups}

    async def count(self, filter_: models.Filter) -> int:
        return int((await self._ask("count", count_filter=filter_, exact=True)).count)

    async def facet(self, facet: Facet, filter_: models.Filter) -> list[tuple[str, int]]:
        """Count the points with each value, the commonest first, then by name."""
        response = await self._ask(
            "facet", key=shape.FACETS[facet], facet_filter=filter_, limit=FACET_VALUES, exact=True
        )
        return sorted(((str(hit.value), hit.count) for hit in response.hits), key=lambda value: (-value[1], value[0]))

    async def documents(self, filter_: models.Filter, most: int) -> list[int]:
        """Return the documents of the points, in id order."""
        points, _ = await self._ask("scroll", scroll_filter=filter_, limit=most, with_payload=["document"])
        return [point.payload["document"] for point in points]

    async def known(self, tenant: str, hashes: Sequence[int], sample: int) -> dict[int, int]:
        """Count each term in a sample of documents that have any of the terms."""
        filter_ = models.Filter(must=[shape.has("tenant", tenant), shape.has_any("terms", hashes)])
        points, _ = await self._ask("scroll", scroll_filter=filter_, limit=sample, with_payload=["terms"])
        asked = set(hashes)
        return dict(Counter(value for point in points for value in point.payload["terms"] if value in asked))

    async def list_languages(self, tenant: str, most: int) -> list[str]:
        """Return the languages of the tenant's documents, the commonest first."""
        heads = models.Filter(must=[shape.has("tenant", tenant), shape.has("head", True)])
        response = await self._ask("facet", key="stem", facet_filter=heads, limit=most)
        return [str(hit.value) for hit in response.hits]

    async def held(self, tenant: str, first: int, last: int) -> dict[int, IndexedState]:
        """Return the state of the tenant's documents with these ids, from their points."""
        between = models.FieldCondition(key="document", range=models.Range(gte=first, lte=last))
        filter_ = models.Filter(must=[shape.has("tenant", tenant), between])
        chunks: defaultdict[int, set[int]] = defaultdict(set)
        vectors: defaultdict[int, set[int]] = defaultdict(set)
        terms: Counter[int] = Counter()
        offset: Any = None
        while True:
            points, offset = await self._ask(
                "scroll", scroll_filter=filter_, limit=1000, offset=offset, with_vectors=True, with_payload=["document"]
            )
            for point in points:
                key, vector = point.payload["document"], point.vector or {}
                chunks[key].add(point.id)
                if "dense" in vector:
                    vectors[key].add(point.id)
                if "words" in vector:
                    terms[key] += len(vector["words"].indices)
            if offset is None:
                return {
                    key: IndexedState(frozenset(ids), frozenset(vectors[key]), terms[key])
                    for key, ids in chunks.items()
                }

    async def marker(self) -> dict[str, Any] | None:
        """Return the collection's marker: {change, next, done, analyzer}; None if it has none."""
        points = await self._ask("retrieve", ids=[shape.MARKER], with_payload=True)
        return dict(points[0].payload or {}) if points else None

    async def at(self) -> int:
        """Return the last change that the collection has read."""
        return int((await self.marker() or {}).get("change", 0))

    async def _ask(self, call: str, **arguments: Any) -> Any:
        return await qdrant().call(call, collection_name=self.name, timeout=self._patience_s, **arguments)
