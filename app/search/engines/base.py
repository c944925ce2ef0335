"""What every engine answers: the documents that fit a question best, one chunk of each."""

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

# By the quality table: above reciprocal ranks on both of its collections.
DEFAULT_FUSION: Fusion = "relative"

# A word of a query is stemmed by so many languages at most.
MOST_LANGUAGES = 16

# Values that a facet shows at most, the commonest first.
FACET_VALUES = 50


@dataclass(frozen=True, slots=True)
class Filters:
    """Only documents that are all of this; None asks for nothing. Tags: it has each of them.

    `site` is a domain or one below it. `language` may leave the region out: 'de' is 'de-AT' too. Those of
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
    """Which vectors an index holds: its generation, and how long they are."""

    generation: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. `after` is the last hit of the page before as (score, document id); it wins over the offset.

    A document has each word of `required`, and none of `excluded`. `degraded` says why something of the question is
    left out. `semantic_weight` is what meaning counts beside words, where shares are joined.
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

    def weights(self, names: Sequence[str]) -> list[float]:
        """What each of these rankings counts."""
        return [self.semantic_weight if name == "semantic" else 1.0 for name in names]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document, its best chunk, its score in this mode and the parts that made it; ranks count from 1."""

    document_id: int
    chunk_id: int
    score: float
    keyword: float | None = None
    semantic: float | None = None
    keyword_rank: int | None = None
    semantic_rank: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of hits, how many documents match in all, the terms looked for (hashes), and where the page began.

    `exact` is at least 1 where any has one of the terms. `as_of` is the change the engine had read. A facet is how many
    of all matching documents have each value.
    """

    hits: list[Hit]
    total: int
    terms: list[int]
    offset: int = 0
    exact: int = 0
    as_of: int = 0
    facets: Mapping[Facet, list[tuple[str, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Size:
    """What an engine holds of a tenant. `chunks` and `vectors` differ where some text has no known token."""

    engine: str
    documents: int
    chunks: int
    vectors: int
    change: int


@dataclass(frozen=True, slots=True)
class Lag:
    """How far an engine is behind: changes it has not read, and the age of the first of them in seconds."""

    changes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """One document in an engine: its chunks, those of them with a vector, and how many different terms it has."""

    chunks: frozenset[int]
    vectors: frozenset[int]
    terms: int


class Engine(Protocol):
    """A follower of SQL's changes. Raises Unavailable with the reason where it cannot answer now."""

    name: str

    async def search(self, ask: Ask, then: Callable[[Session, Found], T]) -> T:
        """What `then` makes of the answer; it reads the texts, from the same state of SQL where the engine has one."""

    async def matching(self, ask: Ask, most: int) -> list[int]:
        """Ids of the documents that the ask's filters and words allow, best keyword score first."""

    async def known(self, tenant: str, model: Model, hashes: Sequence[int]) -> dict[int, int]:
        """How many documents have each of these terms; those of none are left out. A sample where there are many."""

    async def languages(self, tenant: str, model: Model) -> list[str]:
        """The languages of the tenant's documents, the commonest first."""

    async def size(self, tenant: str, model: Model) -> Size: ...

    async def lag(self, model: Model) -> Lag: ...

    async def held(self, tenant: str, model: Model, first: int, last: int) -> dict[int, Held]:
        """The documents of the tenant with ids from `first` to `last`, as the engine has them."""

    async def follow(self, model: Model, progress: Progress) -> dict[str, Any]:
        """Read all that has changed: {documents, built, change}. What follows by itself says {}."""

    async def forget(self, model: Model) -> None:
        """Delete the index of a model that is searched no more."""

    async def close(self) -> None:
        """Give back what the running loop holds open."""
