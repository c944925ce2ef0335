"""A document's history: its versions, what has changed between two, and who told of each change."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session

from app.api.http.auth import CollectionReader, Identity, Page, Paging, Reader
from app.api.routes.documents.collections import reach
from app.api.routes.web.deliveries import last_id
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


@router.get("/documents/{document_id}/versions", summary="A document's versions, the newest first")
async def list_versions(caller: CollectionReader, document_id: str, paging: Paging) -> dict[str, Any]:
    return await read(_versions, caller, document_id, paging)


@router.get("/documents/{document_id}/diff", summary="What changed between two versions of a document")
async def show_diff(
    caller: CollectionReader,
    document_id: str,
    first: Annotated[int | None, Query(alias="from", gt=0, le=2**62, description="By default the one before.")] = None,
    last: Annotated[int | None, Query(alias="to", gt=0, le=2**62, description="By default the current one.")] = None,
    context: Annotated[int, Query(ge=0, le=100, description="Lines shown around a change.")] = 3,
) -> dict[str, Any]:
    old, new = await read(_pair, caller, document_id, first, last)
    return await asyncio.to_thread(versions.diff, old, new, context=context)


@router.get("/documents/{document_id}/changes", summary="Who told of a document's changes, and what came of it")
async def list_changes_of(caller: CollectionReader, document_id: str, paging: Paging) -> dict[str, Any]:
    return await read(_changes_of, caller, document_id, paging)


@router.get("/changes", summary="Changes of pages, the newest first")
async def list_changes(
    caller: Reader,
    paging: Paging,
    state: State | None = None,
    watch_id: Annotated[str | None, Query(max_length=255)] = None,
    url: Annotated[str | None, Query(max_length=2000)] = None,
) -> dict[str, Any]:
    wanted = ChangeFilter(state, _clean(watch_id), _clean(url), before_id=last_id(paging))
    return await read(_changes, caller, wanted, paging)


@router.get("/changes/{event_id}", summary="One change")
async def show_change(caller: Reader, event_id: Annotated[int, Path(gt=0, le=2**62)]) -> dict[str, Any]:
    return await read(_change, caller, event_id)


def _clean(value: str | None) -> str | None:
    return None if value is None else storable(value)


def _found(session: Session, caller: Identity, document_id: str) -> Document:
    return catalog.get(session, caller.tenant, document_id, reach=reach(session, caller, scopes.READ))


def _versions(session: Session, caller: Identity, document_id: str, paging: Page) -> dict[str, Any]:
    document = _found(session, caller, document_id)
    rows = versions.list_versions(session, document, before_id=last_id(paging), limit=paging.limit + 1)
    return paging.cut(rows, lambda row: row, lambda row: [int(row["id"])])


def _pair(
    session: Session, caller: Identity, document_id: str, first: int | None, last: int | None
) -> tuple[VersionText, VersionText]:
    return versions.find_pair(session, _found(session, caller, document_id), first, last)


def _changes_of(session: Session, caller: Identity, document_id: str, paging: Page) -> dict[str, Any]:
    document = _found(session, caller, document_id)
    return _changes(session, caller, ChangeFilter(document_id=document.id, before_id=last_id(paging)), paging)


def _changes(session: Session, caller: Identity, wanted: ChangeFilter, paging: Page) -> dict[str, Any]:
    rows = changes.list_events(session, caller.tenant, wanted, paging.limit + 1)
    return paging.cut(rows, changes.describe, lambda row: [row.id])


def _change(session: Session, caller: Identity, event_id: int) -> dict[str, Any]:
    return changes.describe(changes.get(session, caller.tenant, event_id))
