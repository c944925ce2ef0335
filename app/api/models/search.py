"""Answers of searches, and about the search index."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from app.api.models.base import Number, ResponseModel, Timestamp


class HitMetadata(ResponseModel):
    """The metadata of the document as stored, and the keys that clients of the old service read."""

    model_config = ConfigDict(extra="allow")

    url: str | None
    canonical_url: str | None
    title: str | None
    description: str | None
    domain: str | None
    language: str | None
    country: str | None
    content_id: Number
    is_mobile: bool
    is_mobile_camel: bool = Field(..., alias="isMobile")
    tags: list[str]
    source_type: str
    section: str | None = Field(..., description="The heading above the chunk.")
    chunk_index: int


class HitScores(ResponseModel):
    """The parts of a hit's score; null where the search did not use one."""

    keyword: float | None
    semantic: float | None
    keyword_rank: int | None
    semantic_rank: int | None


class ChunkPosition(ResponseModel):
    """The position of a chunk in the stored text of its version."""

    id: Number
    ordinal: int
    start: int = Field(..., description="First character.")
    end: int = Field(..., description="Character after the last.")
    page: int | None
    headings: list[str] | None


class MatchingChunk(ChunkPosition):
    """A chunk that matches the query."""

    text: str
    snippet: str
    snippet_start: int
    highlights: list[list[int]]
    score: float = Field(..., description="Comparable only with scores of this answer.")


class SearchHit(ResponseModel):
    """A document that matches the query, with its best chunk."""

    id: Number = Field(..., description="The id of the version.")
    url: str | None
    title: str | None
    description: str | None
    text: str = Field(..., description="The text of the chunk.")
    score: float = Field(
        ...,
        description="hybrid: 0 to 1, the mean of the share of the best keyword score and of the cosine; with `rrf` by "
        "ranks alone. semantic: the cosine. keyword: BM25, above 0.",
    )
    weak: bool = Field(..., description="No word of the query led here, and the cosine is low: probably unrelated.")
    metadata: HitMetadata
    document_id: Number
    snippet: str
    snippet_start: int
    highlights: list[list[int]] = Field(..., description="Start and end of each match, in characters of the snippet.")
    scores: HitScores
    chunk: ChunkPosition
    chunks: list[MatchingChunk] = Field([], description="With `chunks: all`: all matching chunks, the best first.")


class FacetCount(ResponseModel):
    """The number of matching documents with this value."""

    value: str
    count: int


class SearchAnswer(ResponseModel):
    """A page of hits, the best first."""

    results: list[SearchHit]
    total: int = Field(..., description="Number of matching documents.")
    query: str
    corrected_query: str | None = Field(..., description="The query that was used where no document has a word of it.")
    words_matched: bool | None = Field(
        ..., description="False if no document has a word of the query: all hits are by meaning. Null in semantic mode."
    )
    operators: bool = Field(..., description="True if quotes, -word, site: and lang: were read as operators.")
    relaxed: list[str] = Field(..., description="Phrases that no document has: their words were searched instead.")
    mode: Literal["hybrid", "semantic", "keyword", "bm25"]
    limit: int
    offset: int
    next_cursor: str | None = Field(..., description="Pass it as `cursor` to get the next page; null on the last page.")
    has_more: bool
    as_of: int = Field(..., description="The last change that the index had read.")
    degraded: list[str] = Field(..., description="Parts of the search that were not possible, and why.")
    facets: dict[str, list[FacetCount]]


class SimilarDocuments(ResponseModel):
    """The documents nearest in meaning, the best first."""

    results: list[SearchHit]


class SearchStats(ResponseModel):
    """The size of the tenant's index, with the keys of the old service."""

    total_documents: int
    total_chunks: int
    qdrant_points: int = Field(..., description="Number of vectors, in any engine.")
    bm25_documents: int
    collection_name: str
    engine: str
    embedder: str
    dimension: int
    change: int = Field(..., description="The last change that the index has read.")
    documents_stored: int


class IndexLag(ResponseModel):
    """The changes that the engine has not read yet."""

    changes: int
    seconds: float = Field(..., description="The age of the oldest of them.")


class IndexStatus(ResponseModel):
    """The engine, its embedding model and its lag."""

    engine: str
    model: str
    dimension: int
    behind: IndexLag
    outdated: int = Field(..., description="Chunks analysed by another version of the program.")


class GenerationSummary(ResponseModel):
    """A generation of the index: the vectors of one model."""

    name: str
    dimension: int
    state: str
    changed_at: Timestamp | None


class GenerationList(ResponseModel):
    """The generations of the index; the one in use is first."""

    data: list[GenerationSummary]
