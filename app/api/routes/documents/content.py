"""Pages as they were received, by id, URL or crawl, in the old service's shape; an id is that of a version."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session, aliased

from app.api.http.auth import Reader
from app.core.clock import moment
from app.core.db import read
from app.core.errors import NotFound
from app.core.sql import storable
from app.documents import urls
from app.documents.models import Document, DocumentVersion

router = APIRouter(prefix="/api/content", tags=["intake"])

ContentId = Annotated[int, Path(gt=0, le=2**62)]


@router.get("/by-url", summary="What was received from a URL, the newest first")
async def by_url(
    caller: Reader, url: Annotated[str, Query(max_length=2000)], limit: Annotated[int, Query(ge=1, le=100)] = 10
) -> list[dict[str, Any]]:
    """The page however its address is written: tracking parameters and the like make no difference."""
    found = await read(_by_url, caller.tenant, storable(url), limit)
    if not found:
        raise NotFound(f"No content found for URL: {url}", code="content_not_found")
    return found


@router.get("/by-session/{session_id}", summary="What a crawl brought, the oldest first")
async def by_session(
    caller: Reader,
    session_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> list[dict[str, Any]]:
    found = await read(_by_session, caller.tenant, storable(session_id), limit, offset)
    if not found:
        raise NotFound(f"No content found for session: {session_id}", code="content_not_found")
    return found


@router.get("/{content_id}", summary="One page as it was received")
async def by_id(caller: Reader, content_id: ContentId) -> dict[str, Any]:
    found = await read(_by_id, caller.tenant, content_id)
    if not found:
        raise NotFound(f"Content {content_id} not found", code="content_not_found")
    return found[0]


def _by_url(session: Session, tenant: str, url: str, limit: int) -> list[dict[str, Any]]:
    same = Document.canonical_url == urls.canonical(url)
    # By its time first: what was adopted from another system has its id from there.
    newest = (DocumentVersion.fetched_at.desc(), DocumentVersion.id.desc())
    return _found(session, tenant, sa.and_(same), newest, limit)


def _by_session(session: Session, tenant: str, crawl: str, limit: int, offset: int) -> list[dict[str, Any]]:
    return _found(session, tenant, DocumentVersion.crawl_session == crawl, (DocumentVersion.id.asc(),), limit, offset)


def _by_id(session: Session, tenant: str, content_id: int) -> list[dict[str, Any]]:
    return _found(session, tenant, DocumentVersion.id == content_id, (DocumentVersion.id.asc(),), 1)


def _found(
    session: Session, tenant: str, wanted: sa.ColumnElement[bool], order: tuple[Any, ...], limit: int, offset: int = 0
) -> list[dict[str, Any]]:
    query = (
        sa.select(DocumentVersion, Document.url, _KEPT)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(DocumentVersion.tenant == tenant, wanted)
        .order_by(*order)
        .offset(offset)
        .limit(limit)
    )
    found = session.execute(query).all()
    ids = {kept_id for _, _, kept_id in found if kept_id is not None}
    keeping = sa.select(DocumentVersion).where(DocumentVersion.id.in_(ids))
    kept = {version.id: version for version in session.scalars(keeping)} if ids else {}
    return [_item(version, url, kept.get(kept_id, version)) for version, url, kept_id in found]


# The version that keeps the content of one that said nothing new: the one before it that said the same.
_BEFORE = aliased(DocumentVersion)
_KEPT = sa.case(
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


def _item(version: DocumentVersion, url: str | None, kept: DocumentVersion) -> dict[str, Any]:
    fields = version.fields
    shown = {name: fields.get(name) for name in ("title", "description", "language", "country")}
    return {
        "id": version.id,
        "url": version.url or url,
        "source_url": version.resolved_url,
        "markdown": kept.text or kept.body,
        "html": kept.html,
        "links": fields.get("links"),
        "screenshot": fields.get("screenshot"),
        "metadata": {**fields.get("metadata", {}), **shown, "statusCode": version.status_code},
        "content_source": fields.get("source"),
        "scraped_at": moment(version.fetched_at),
        "created_at": moment(version.created_at),
        "crawl_session_id": version.crawl_session,
    }
