"""Pages as received, by id, URL or crawl, in the shape of the old service; an id is that of a version."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session, aliased

from app.api.http.auth import Reader
from app.api.models.base import documented
from app.api.models.documents import ContentItem
from app.core.clock import moment
from app.core.db import read
from app.core.errors import NotFound
from app.core.sql import storable
from app.documents import urls
from app.documents.models import Document, DocumentVersion

router = APIRouter(prefix="/api/content", tags=["intake"])

ContentId = Annotated[int, Path(gt=0, le=2**62)]


@router.get(
    "/by-url", summary="List the content of a URL, the newest first", responses={200: documented(list[ContentItem])}
)
async def list_content_by_url(
    caller: Reader, url: Annotated[str, Query(max_length=2000)], limit: Annotated[int, Query(ge=1, le=100)] = 10
) -> list[dict[str, Any]]:
    """Compares canonical URLs: tracking parameters, fragment and the case of the host make no difference."""
    items = await read(_by_url, caller.tenant, storable(url), limit)
    if not items:
        raise NotFound(f"No content found for URL: {url}", code="content_not_found")
    return items


@router.get(
    "/by-session/{session_id}",
    summary="List the content of a crawl, the oldest first",
    responses={200: documented(list[ContentItem])},
)
async def list_content_by_crawl(
    caller: Reader,
    session_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> list[dict[str, Any]]:
    items = await read(_by_session, caller.tenant, storable(session_id), limit, offset)
    if not items:
        raise NotFound(f"No content found for session: {session_id}", code="content_not_found")
    return items


@router.get("/{content_id}", summary="Get a page as received", responses={200: documented(ContentItem)})
async def get_content(caller: Reader, content_id: ContentId) -> dict[str, Any]:
    items = await read(_by_id, caller.tenant, content_id)
    if not items:
        raise NotFound(f"Content {content_id} not found", code="content_not_found")
    return items[0]


def _by_url(session: Session, tenant: str, url: str, limit: int) -> list[dict[str, Any]]:
    same = Document.canonical_url == urls.canonical(url)
    # By time first: an imported version has an id from its old system.
    newest = (DocumentVersion.fetched_at.desc(), DocumentVersion.id.desc())
    return _items(session, tenant, sa.and_(same), newest, limit)


def _by_session(session: Session, tenant: str, crawl: str, limit: int, offset: int) -> list[dict[str, Any]]:
    return _items(session, tenant, DocumentVersion.crawl_session == crawl, (DocumentVersion.id.asc(),), limit, offset)


def _by_id(session: Session, tenant: str, content_id: int) -> list[dict[str, Any]]:
    return _items(session, tenant, DocumentVersion.id == content_id, (DocumentVersion.id.asc(),), 1)


def _items(
    session: Session,
    tenant: str,
    condition: sa.ColumnElement[bool],
    order: tuple[Any, ...],
    limit: int,
    offset: int = 0,
) -> list[dict[str, Any]]:
    query = (
        sa.select(DocumentVersion, Document.url, _HOLDER)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(DocumentVersion.tenant == tenant, condition)
        .order_by(*order)
        .offset(offset)
        .limit(limit)
    )
    rows = session.execute(query).all()
    ids = {holder_id for _, _, holder_id in rows if holder_id is not None}
    holding = sa.select(DocumentVersion).where(DocumentVersion.id.in_(ids))
    holders = {version.id: version for version in session.scalars(holding)} if ids else {}
    return [_item(version, url, holders.get(holder_id, version)) for version, url, holder_id in rows]


# The content of an unchanged version is stored in the last version before it that has text.
_BEFORE = aliased(DocumentVersion)
_HOLDER = sa.case(
    (
        DocumentVersion.state == "unchanged",
        sa.select(sa.func.max(_BEFORE.id))
        .where(
            _BEFORE.document_id == DocumentVersion.document_id,
            _BEFORE.id < DocumentVersion.id,
            _BEFORE.text.is_not(None),
        )
        .scalar_subquery(),
    )
)


def _item(version: DocumentVersion, url: str | None, holder: DocumentVersion) -> dict[str, Any]:
    fields = version.fields
    described = {name: fields.get(name) for name in ("title", "description", "language", "country")}
    return {
        "id": version.id,
        "url": version.url or url,
        "source_url": version.resolved_url,
        "markdown": holder.text or holder.body,
        "html": holder.html,
        "links": fields.get("links"),
        "screenshot": fields.get("screenshot"),
        "metadata": {**fields.get("metadata", {}), **described, "statusCode": version.status_code},
        "content_source": fields.get("source"),
        "scraped_at": moment(version.fetched_at),
        "created_at": moment(version.created_at),
        "crawl_session_id": version.crawl_session,
    }
