"""The history of documents: versions, differences between two of them, and reported changes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session

from app.api.http.auth import CollectionReader, Identity, Reader
from app.api.http.collection_access import reachable_collections
from app.api.http.paging import ListQuery, Paging
from app.api.models.base import documented
from app.api.models.documents import ChangePage, ChangeSummary, VersionDiff, VersionPage
from app.core.db import read
from app.core.sql import storable
from app.documents import catalog, versions
from app.documents.models import Document
from app.documents.versions import VersionText
from app.sources.changes import changes
from app.sources.changes.changes import ChangeFilter
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["documents"])

State = Literal["queued", "in_progress", "indexed", "unchanged", "superseded", "failed", "cancelled", "ignored"]


@router.get(
    "/documents/{document_id}/versions",
    summary="List the versions of a document, the newest first",
    responses={200: documented(VersionPage)},
)
async def list_document_versions(caller: CollectionReader, document_id: str, paging: Paging) -> dict[str, Any]:
    return await read(_versions, caller, document_id, paging)


@router.get(
    "/documents/{document_id}/diff",
    summary="Compare two versions of a document",
    responses={200: documented(VersionDiff)},
)
async def compare_document_versions(
    caller: CollectionReader,
    document_id: str,
    first: Annotated[
        int | None, Query(alias="from", gt=0, le=2**62, description="By default the version before.")
    ] = None,
    last: Annotated[
        int | None, Query(alias="to", gt=0, le=2**62, description="By default the current version.")
    ] = None,
    context: Annotated[int, Query(ge=0, le=100, description="Unchanged lines around a change.")] = 3,
) -> dict[str, Any]:
    old, new = await read(_pair, caller, document_id, first, last)
    return await asyncio.to_thread(versions.diff, old, new, context=context)


@router.get(
    "/documents/{document_id}/changes",
    summary="List the reported changes of a document, with their outcomes",
    responses={200: documented(ChangePage)},
)
async def list_document_changes(caller: CollectionReader, document_id: str, paging: Paging) -> dict[str, Any]:
    return await read(_document_changes, caller, document_id, paging)


@router.get(
    "/changes", summary="List reported changes of pages, the newest first", responses={200: documented(ChangePage)}
)
async def list_changes(
    caller: Reader,
    paging: Paging,
    state: State | None = None,
    watch_id: Annotated[str | None, Query(max_length=255)] = None,
    url: Annotated[str | None, Query(max_length=2000)] = None,
) -> dict[str, Any]:
    change_filter = ChangeFilter(state, _storable(watch_id), _storable(url), before_id=paging.after_number())
    return await read(_changes, caller, change_filter, paging)


@router.get("/changes/{event_id}", summary="Get a reported change", responses={200: documented(ChangeSummary)})
async def get_change(caller: Reader, event_id: Annotated[int, Path(gt=0, le=2**62)]) -> dict[str, Any]:
    return await read(_change, caller, event_id)


def _storable(value: str | None) -> str | None:
    return None if value is None else storable(value)


def _document(session: Session, caller: Identity, document_id: str) -> Document:
    return catalog.get(session, caller.tenant, document_id, reach=reachable_collections(session, caller, scopes.READ))


def _versions(session: Session, caller: Identity, document_id: str, paging: ListQuery) -> dict[str, Any]:
    document = _document(session, caller, document_id)
    rows = versions.list_versions(session, document, before_id=paging.after_number(), limit=paging.limit + 1)
    return paging.cut(rows, lambda row: row, lambda row: [int(row["id"])])


def _pair(
    session: Session, caller: Identity, document_id: str, first: int | None, last: int | None
) -> tuple[VersionText, VersionText]:
    return versions.find_pair(session, _document(session, caller, document_id), first, last)


def _document_changes(session: Session, caller: Identity, document_id: str, paging: ListQuery) -> dict[str, Any]:
    document = _document(session, caller, document_id)
    return _changes(session, caller, ChangeFilter(document_id=document.id, before_id=paging.after_number()), paging)


def _changes(session: Session, caller: Identity, change_filter: ChangeFilter, paging: ListQuery) -> dict[str, Any]:
    rows = changes.list_events(session, caller.tenant, change_filter, paging.limit + 1)
    return paging.cut(rows, changes.describe, lambda row: [row.id])


def _change(session: Session, caller: Identity, event_id: int) -> dict[str, Any]:
    return changes.describe(changes.get(session, caller.tenant, event_id))
