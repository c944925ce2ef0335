"""Crawls of our own: started here, run as one job, looked at like any other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import CollectionCaller
from app.api.http.idempotency import OnceOnly
from app.api.http.responses import answer_of, answered
from app.api.routes.documents.collections import target
from app.clients import firecrawl
from app.core.errors import Conflict
from app.documents import collections, urls
from app.jobs.idempotency import Answer
from app.jobs.ledger.enqueue import enqueue
from app.sources.crawls import crawls
from app.sources.crawls.jobs import MAX_PAGES, Crawl, Pattern
from app.sources.fetching.page_text import split_url

router = APIRouter(prefix="/api/crawls", tags=["intake"])


class GivenCrawl(BaseModel):
    """`include` and `exclude` are patterns of paths, with * and ?: `/docs/*`."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(min_length=1, max_length=2000, description="Where it starts.")]
    max_depth: Annotated[int, Field(ge=0, le=20, description="Links away from the start; 0 reads that alone.")] = 3
    limit: Annotated[int, Field(ge=1, le=MAX_PAGES, description="Pages at the most.")] = 100
    include: Annotated[list[Pattern], Field(max_length=50)] = []
    exclude: Annotated[list[Pattern], Field(max_length=50)] = []
    sitemap: Annotated[
        Literal["include", "only", "skip"], Field(description="Whether the pages that the sitemap names are read.")
    ] = "include"
    subdomains: Annotated[bool, Field(description="Whether hosts below the start's are read too.")] = False
    engine: Annotated[
        Literal["auto", "builtin", "firecrawl"], Field(description="auto: Firecrawl where one is set up.")
    ] = "auto"
    tags: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)] = []
    collection: Annotated[str, Field(max_length=100)] | None = None


@router.post("", summary="Crawl a site and index its pages", status_code=202)
async def start_crawl(request: Request, caller: CollectionCaller, once: OnceOnly, body: GivenCrawl) -> Response:
    """One job: its progress is the crawl's, its cancel stops it, what was indexed until then stays. The crawl has the
    job's id: `/api/metrics/crawls/{id}` tells of its pages."""
    url = urls.check_url(body.url)
    split_url(url)
    if body.engine == "firecrawl" and not firecrawl.is_configured():
        raise Conflict("Firecrawl is not set up here: MILLRACE_FIRECRAWL_URL", code="not_set_up")
    collection = target(caller, body.collection)
    fields: dict[str, Any] = body.model_dump(exclude={"url", "collection"})

    def work(session: Session) -> Answer:
        if collection is not None:
            collections.find(session, caller.tenant, collection)
        job = enqueue(
            session, Crawl(url=url, collection=collection, **fields), tenant=caller.tenant, request_id=caller.request_id
        )
        crawls.begin(session, caller.tenant, job.id, operation="crawl", base_url=url, job_id=job.id)
        return answer_of(job, {"crawl_id": job.id})

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))
