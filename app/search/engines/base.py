"""The interface of every engine: find the documents that match a request best, each with one chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy.orm import Session

from app.jobs.worker.progress import Progress
from app.search.embedders import Vectors

Mode = Literal["hybrid", "semantic", "keyword"]
Fusion = Literal["relative", "rrf"]
Facet = Literal["source", "domain", "language", "tags", "collection"]
T = TypeVar("T")

# From the quality table: above reciprocal ranks on both of its collections.
DEFAULT_FUSION: Fusion = "relative"

# Upper bound of languages that a word of a query is stemmed by.
MAX_LANGUAGES = 32

# Upper bound of values that a facet shows, the commonest first.
FACET_VALUES = 50


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions that a document must meet, all of them; None is no condition. A document must have each of the tags.

    `site` is a domain or one below it. `language` without a region matches every region: 'de' matches 'de-AT'.
    Documents in
    `not_ids` are left out.
    """

    domain: str | None = None
    site: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = None
    source: str | None = None
    tags: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    document_ids: Sequence[int] | None = None
    collection_ids: Sequence[int] | None = None
    not_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """The generation of an index's vectors and their dimension."""

    generation: str
    dimension: int


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A request to an engine. `after` is the last hit of the previous page as (score, document id) and overrides the
    offset.

    A document has each word of `required`, and no word of `excluded`. `degraded` is the reason why part of the query is
    ignored, `relaxed` are phrases that no document has. `semantic_weight` is the weight of meaning relative to words.
    A hit without words whose cosine is below `weak_below` is weak.
    """

    tenant: str
    query: str
    vector: Vectors | None
    model: Model
    mode: Mode = "hybrid"
    filters: Filters = field(default_factory=Filters)
    limit: int = 10
    offset: int = 0
    after: tuple[float, int] | None = None
    fusion: Fusion = DEFAULT_FUSION
    rrf_k: int = 60
    semantic_weight: float = 1.0
    required: Sequence[str] = ()
    excluded: Sequence[str] = ()
    facets: Sequence[Facet] = ()
    degraded: str | None = None
    relaxed: Sequence[str] = ()
    weak_below: float = 0.0

    def weights(self, names: Sequence[str]) -> list[float]:
        """Return the weight of each of these rankings."""
        return [self.semantic_weight if name == "semantic" else 1.0 for name in names]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document, its best chunk, its score in this mode and the parts of that score; ranks start at 1."""

    document_id: int
    chunk_id: int
    score: float
    keyword: float | None = None
    semantic: float | None = None
    keyword_rank: int | None = None
    semantic_rank: int | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A page of hits, the number of matching documents, the hashes of the terms, and the offset of the page.

    `outdated`: the index may hold terms of another analyzer.
    `exact` is at least 1 if a document has one of the terms. `as_of` is the last change the engine has read. A facet
    counts
    all matching documents by value.
    """

    hits: list[Hit]
    total: int
    terms: list[int]
    offset: int = 0
    exact: int = 0
    as_of: int = 0
    outdated: bool = False
    facets: Mapping[Facet, list[tuple[str, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a tenant's index. `chunks` and `vectors` differ if some text has no known token."""

    engine: str
    documents: int
    chunks: int
    vectors: int
    change: int


@dataclass(frozen=True, slots=True)
class Lag:
    """The changes that an engine has not read, and the age of the first of them in seconds."""

    changes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class IndexedState:
    """The state of one document in an engine: its chunks, those with a vector, and its number of different terms."""

    chunks: frozenset[int]
    vectors: frozenset[int]
    terms: int


class Engine(Protocol):
    """An index that follows SQL's changes. Raises Unavailable with the reason if it cannot answer now."""

    name: str

    async def search(self, ask: EngineRequest, then: Callable[[Session, SearchResult], T]) -> T:
        """Return the result of `then`, which reads the texts from the same state of SQL where the engine has one."""

    async def matching(self, ask: EngineRequest, most: int) -> list[int]:
        """Return ids of the documents that match the request's filters and words, best keyword score first."""

    async def known(self, tenant: str, model: Model, hashes: Sequence[int]) -> dict[int, int]:
        """Count the documents with each of these terms; unknown terms are left out. A large index is sampled."""

    async def languages(self, tenant: str, model: Model) -> list[str]:
        """Return the languages of the tenant's documents, the commonest first."""

    async def size(self, tenant: str, model: Model) -> Size: ...

    async def lag(self, model: Model) -> Lag: ...

    async def held(self, tenant: str, model: Model, first: int, last: int) -> dict[int, IndexedState]:
        """Return the engine's state of the tenant's documents with ids from `first` to `last`."""

    async def follow(self, model: Model, progress: Progress) -> dict[str, Any]:
        """Read all changes: {documents, built, change}. An engine that follows on each search returns {}."""

    async def forget(self, model: Model) -> None:
        """Delete the index of a model that is no longer searched."""

    async def close(self) -> None:
        """Close the connections of the running loop."""
