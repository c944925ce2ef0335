"""What every engine answers: the documents that fit a question best, one chunk of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from sqlalchemy.orm import Session

from app.search.embed import Vectors

Mode = Literal["hybrid", "semantic", "keyword"]
Fusion = Literal["relative", "rrf"]

# By the quality table: above reciprocal ranks on both of its collections.
DEFAULT_FUSION: Fusion = "relative"


@dataclass(frozen=True, slots=True)
class Filters:
    """Only documents that are all of this; None asks for nothing. Tags: it has each of them."""

    domain: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = None
    source: str | None = None
    tags: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    document_ids: Sequence[int] | None = None
    collection_ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """Which vectors an index holds: its generation, and how long they are."""

    generation: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. `after` is the last hit of the page before as (score, document id); it wins over the offset."""

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
    """A page of hits, how many documents match in all, the terms looked for (hashes), and where the page began."""

    hits: list[Hit]
    total: int
    terms: list[int]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Size:
    engine: str
    documents: int
    chunks: int
    vectors: int
    change: int


class Engine(Protocol):
    """Follows the changes of SQL by itself, before each answer."""

    name: str

    def search(self, session: Session, ask: Ask) -> Found: ...

    def size(self, session: Session, tenant: str, model: Model) -> Size: ...
