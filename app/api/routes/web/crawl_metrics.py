"""Routes that list crawls with their counts and times, in the shape of the old service."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from app.api.http.auth import Identity, Reader
from app.api.http.paging import ListQuery, Paging
from app.api.models.base import documented
from app.api.models.web import CrawlDetail, CrawlsPage
from app.core.db import read
from app.sources.crawls import crawls

router = APIRouter(prefix="/api/metrics/crawls", tags=["intake"])


@router.get("", summary="List crawls, the newest first", responses={200: documented(CrawlsPage)})
async def list_crawls(caller: Reader, paging: Paging) -> dict[str, Any]:
    return await read(_page, caller, paging)


@router.get(
    "/{crawl_id}",
    summary="Get a crawl: its state, the counts of its pages and its times",
    responses={200: documented(CrawlDetail)},
)
async def get_crawl(
    caller: Reader,
    crawl_id: str,
    include_per_page: Annotated[bool, Query(description="Add each page with its times or its error.")] = False,
) -> dict[str, Any]:
    return await read(_crawl, caller, crawl_id, include_per_page)


def _crawl(session: Session, caller: Identity, crawl_id: str, per_page: bool) -> dict[str, Any]:
    return crawls.describe(session, crawls.get(session, caller.tenant, crawl_id), per_page=per_page)


def _page(session: Session, caller: Identity, paging: ListQuery) -> dict[str, Any]:
    rows = crawls.list_crawls(session, caller.tenant, before_id=paging.after_number(), limit=paging.limit + 1)
    views = crawls.describe_all(session, rows[: paging.limit])
    return paging.cut(rows, lambda row: views[row.crawl_id], lambda row: [row.id])
