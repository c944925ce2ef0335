"""The route that starts a crawl as one job."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import CollectionCaller
from app.api.http.collection_access import target_collection
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.web import CrawlJob
from app.clients import firecrawl
from app.core.errors import Conflict
from app.documents import collections, urls
from app.jobs.ledger.enqueue import enqueue
from app.sources.crawls import crawls
from app.sources.crawls.jobs import MAX_PAGES, Crawl, Pattern
from app.sources.fetching.page_text import split_url

router = APIRouter(prefix="/api/crawls", tags=["intake"])


class CrawlRequest(BaseModel):
    """A crawl. `include` and `exclude` are patterns of paths with * and ?, such as `/docs/*`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "url": "https://docs.example.org/",
                    "max_depth": 3,
                    "limit": 200,
                    "include": ["/guide/*"],
                    "tags": ["docs"],
                }
            ]
        },
    )

    url: Annotated[str, Field(min_length=1, max_length=2000, description="The first page.")]
    max_depth: Annotated[
        int, Field(ge=0, le=20, description="Number of links from the first page; 0 reads that page only.")
    ] = 3
    limit: Annotated[int, Field(ge=1, le=MAX_PAGES, description="Maximum number of pages.")] = 100
    include: Annotated[list[Pattern], Field(max_length=50)] = []
    exclude: Annotated[list[Pattern], Field(max_length=50)] = []
    sitemap: Annotated[
        Literal["include", "only", "skip"], Field(description="Whether the crawl reads the pages of the sitemap.")
    ] = "include"
    subdomains: Annotated[bool, Field(description="Whether the crawl reads subdomains of the first host.")] = False
    engine: Annotated[
        Literal["auto", "builtin", "firecrawl"], Field(description="auto: Firecrawl if it is configured.")
    ] = "auto"
    tags: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)] = []
    collection: Annotated[str, Field(max_length=100)] | None = None


@router.post(
    "",
    summary="Crawl a site and index its pages",
    status_code=202,
    responses={
        202: documented(CrawlJob, "The job. `Location` has its address."),
        200: documented(CrawlJob, "The job, which has ended."),
    },
)
async def start_crawl(request: Request, caller: CollectionCaller, once: Idempotent, body: CrawlRequest) -> Response:
    """Starts one job. Its progress counts pages; a cancel stops the crawl and keeps the indexed pages. The crawl has
    the id of the job: `/api/metrics/crawls/{id}` returns its pages."""
    url = urls.check_url(body.url)
    split_url(url)
    if body.engine == "firecrawl" and not firecrawl.is_configured():
        raise Conflict("Firecrawl is not configured: set MILLRACE_FIRECRAWL_URL", code="not_set_up")
    collection = target_collection(caller, body.collection)
    fields: dict[str, Any] = body.model_dump(exclude={"url", "collection"})

    def work(session: Session) -> Answer:
        if collection is not None:
            collections.find(session, caller.tenant, collection)
        job = enqueue(
            session, Crawl(url=url, collection=collection, **fields), tenant=caller.tenant, request_id=caller.request_id
        )
        crawls.begin(session, caller.tenant, job.id, operation="crawl", base_url=url, job_id=job.id)
        return answer_of(job, {"crawl_id": job.id})

    return await answered(request, caller.tenant, await once.run(caller, work))
