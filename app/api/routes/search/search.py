"""The search routes, in the shape of the old service."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from app.api.http.auth import CollectionReader, Reader
from app.api.http.collection_access import select_collections
from app.api.http.times import utc
from app.api.models.base import documented
from app.api.models.search import SearchAnswer, SearchStats, SimilarDocuments
from app.core.db import read
from app.documents import catalog, collections
from app.search.engines.base import DEFAULT_FUSION, Facet, Filters, Fusion, Mode
from app.search.index.generations import active
from app.search.query import search as query
from app.search.query.question import MAX_PAGE_HITS, MAX_QUERY_CHARACTERS, Question
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["search"])

DocumentId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]


class SearchFilters(BaseModel):
    """Exact values. A document must have all of the tags, and be fetched at or after `since` and before `until`."""

    model_config = ConfigDict(populate_by_name=True)

    domain: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool | None = Field(None, validation_alias=AliasChoices("isMobile", "is_mobile"))
    source: str | None = None
    tags: Annotated[list[str], Field(max_length=20)] = []
    since: datetime | None = None
    until: datetime | None = None
    document_ids: Annotated[list[DocumentId], Field(max_length=1000)] | None = None
    collections: Annotated[
        list[str], Field(max_length=20, description="Names of collections; the document is in one of them.")
    ] = []

    def filters(self) -> Filters:
        """Return the filters of the engines, without the collections."""
        return Filters(
            domain=self.domain,
            language=self.language,
            country=self.country,
            is_mobile=self.is_mobile,
            source=self.source,
            tags=tuple(self.tags),
            since=utc(self.since, "since"),
            until=utc(self.until, "until"),
            document_ids=None if self.document_ids is None else tuple(map(int, self.document_ids)),
        )


class SearchQuery(BaseModel):
    """A query with its mode, filters and page."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "how do I rotate a key",
                    "mode": "hybrid",
                    "limit": 10,
                    "filters": {"domain": "docs.example.org", "language": "en"},
                    "facets": ["domain"],
                }
            ]
        }
    )

    query: Annotated[str, Field(max_length=MAX_QUERY_CHARACTERS)]
    mode: Literal["hybrid", "semantic", "keyword", "bm25"] = "hybrid"
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_HITS)] = 10
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    filters: SearchFilters | None = None
    fusion: Fusion = Field(DEFAULT_FUSION, description="How a hybrid search combines its two scores.")
    cursor: Annotated[str, Field(max_length=500)] | None = Field(None, description="`next_cursor` of the page before.")
    facets: Annotated[list[Facet], Field(max_length=5)] = Field(
        default=[], description="Count all matches by these fields; the 50 most frequent values of each."
    )
    operators: bool | None = Field(
        None,
        description='true: read "phrases", -words, site: and lang: as operators; false: as text. By default they are '
        "operators in a query of up to 20 words.",
    )
    chunks: Literal["best", "all"] = Field("best", description="all: every matching chunk of each document, up to 20.")


@router.post("/search", summary="Search documents by meaning and by words", responses={200: documented(SearchAnswer)})
async def search(caller: CollectionReader, body: SearchQuery) -> dict[str, Any]:
    mode: Mode = "keyword" if body.mode == "bm25" else body.mode
    filters = body.filters or SearchFilters()
    within = await read(select_collections, caller, scopes.READ, tuple(filters.collections))
    question = Question(
        query=body.query,
        mode=mode,
        filters=replace(filters.filters(), collection_ids=within),
        limit=body.limit,
        offset=body.offset,
        cursor=body.cursor,
        fusion=body.fusion,
        facets=tuple(dict.fromkeys(body.facets)),
        all_chunks=body.chunks == "all",
        operators=body.operators,
    )
    answer = await query.search(caller.tenant, question) | {"mode": body.mode}
    if "collection" in answer["facets"]:
        counts = answer["facets"]["collection"]
        names = await read(collections.names, [int(count["value"]) for count in counts])
        answer["facets"]["collection"] = [
            count | {"value": names[int(count["value"])]} for count in counts if int(count["value"]) in names
        ]
    return answer


@router.get(
    "/documents/{document_id}/similar",
    summary="Find the documents nearest in meaning",
    responses={200: documented(SimilarDocuments)},
)
async def find_similar_documents(
    caller: CollectionReader, document_id: str, limit: Annotated[int, Query(ge=1, le=MAX_PAGE_HITS)] = 10
) -> dict[str, Any]:
    """Returns hits like a search, the best first; none while the document is not indexed."""
    within = await read(select_collections, caller, scopes.READ, ())
    document = await read(partial(catalog.get, reach=within), caller.tenant, document_id)
    return {"results": await query.similar(caller.tenant, document.id, limit=limit, within=within)}


@router.get("/stats", summary="Get the size of the search index", responses={200: documented(SearchStats)})
async def get_stats(caller: Reader) -> dict[str, Any]:
    """`qdrant_points` counts vectors and `bm25_documents` counts documents with words, in any engine."""
    size = await query.stats(caller.tenant)
    stored, model = await read(catalog.count, caller.tenant), await active()
    return {
        "total_documents": size.documents,
        "total_chunks": size.chunks,
        "qdrant_points": size.vectors,
        "bm25_documents": size.documents,
        "collection_name": "millrace",
        "engine": size.engine,
        "embedder": model.generation,
        "dimension": model.dimension,
        "change": size.change,
        "documents_stored": stored,
    }
