"""Routes that create, list, change and delete collections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.audit import note
from app.api.http.auth import Caller, CollectionCaller, Identity
from app.api.http.collection_access import reachable_collections
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import ListQuery, Paging
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.collections import CollectionPage, CollectionSummary
from app.api.models.jobs import JOB_ACCEPTED, AcceptedJob
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import NotFound
from app.core.sql import storable
from app.documents import collections
from app.documents.jobs import DeleteDocuments, DocumentSelection
from app.documents.models import Collection
from app.jobs.ledger.enqueue import enqueue
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["collections"])

Title = Annotated[str, Field(max_length=200)]
Description = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class CollectionRequest(BaseModel):
    """A new collection."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "handbook", "title": "Employee handbook"}]}
    )

    name: Name
    title: Title = ""
    description: Description = ""


class CollectionChange(BaseModel):
    """New values; absent fields stay as they are."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "Handbook 2026"}]})

    name: Name | None = None
    title: Title | None = None
    description: Description | None = None


@router.post(
    "/collections",
    summary="Create a collection",
    status_code=201,
    responses={201: documented(CollectionSummary)},
)
async def create_collection(request: Request, caller: Caller, once: Idempotent, body: CollectionRequest) -> Response:
    def work(session: Session) -> Answer:
        texts = {"title": storable(body.title), "description": storable(body.description)}
        row = collections.create(session, caller.tenant, body.name, **texts)
        return Answer(201, collections.views(session, caller.tenant, [row])[0])

    return await answered(request, caller.tenant, await once.run(caller, work))


@router.get("/collections", summary="List collections by name", responses={200: documented(CollectionPage)})
async def list_collections(caller: CollectionCaller, paging: Paging) -> dict[str, Any]:
    """Each collection comes with the counts of its documents."""
    return await read(_page, caller, paging)


def _page(session: Session, caller: Identity, paging: ListQuery) -> dict[str, Any]:
    after = paging.after_name()
    only = reachable_collections(session, caller, scopes.READ)
    rows = collections.list_collections(session, caller.tenant, only=only, after=after, limit=paging.limit + 1)
    shown = {view["name"]: view for view in collections.views(session, caller.tenant, rows[: paging.limit])}
    return paging.cut(rows, lambda row: shown[row.name], lambda row: [row.name])


@router.get(
    "/collections/{collection}",
    summary="Get a collection and the counts of its documents",
    responses={200: documented(CollectionSummary)},
)
async def get_collection(caller: CollectionCaller, collection: str) -> dict[str, Any]:
    return await read(_collection, caller, collection)


def _collection(session: Session, caller: Identity, name: str) -> dict[str, Any]:
    row = _reachable_collection(session, caller, name)
    return collections.views(session, caller.tenant, [row])[0]


def _reachable_collection(session: Session, caller: Identity, name: str) -> Collection:
    readable = caller.collections(scopes.READ)
    if readable is not None and not scopes.among(name, readable):
        raise NotFound("Collection not found", code="collection_not_found")
    return collections.find(session, caller.tenant, name)


@router.patch(
    "/collections/{collection}",
    summary="Rename or describe a collection",
    responses={200: documented(CollectionSummary)},
)
async def update_collection(caller: Caller, collection: str, body: CollectionChange) -> dict[str, Any]:
    """Keys refer to a collection by name. After a rename, keys for the old name no longer reach it."""
    return await in_transaction(_update, caller, collection, body)


def _update(session: Session, caller: Identity, name: str, body: CollectionChange) -> dict[str, Any]:
    changes = {field: storable(value) for field, value in body.model_dump(exclude_none=True).items()}
    row = collections.change(session, caller.tenant, name, changes)
    note(session, caller, "collection.change", row.name, tenant=caller.tenant, before=name)
    session.flush()
    return collections.views(session, caller.tenant, [row])[0]


@router.delete(
    "/collections/{collection}",
    summary="Delete a collection, with or without its documents",
    status_code=204,
    responses=JOB_ACCEPTED
    | {
        204: {"description": "The collection was empty and is deleted."},
        202: documented(AcceptedJob, "The job that deletes or releases its documents, and then the collection."),
    },
)
async def delete_collection(
    request: Request,
    caller: Caller,
    once: Idempotent,
    collection: str,
    documents: Annotated[
        Literal["keep", "delete"] | None, Query(description="Required if the collection has documents.")
    ] = None,
) -> Response:
    def work(session: Session) -> Answer:
        if documents is None:
            row = collections.remove(session, caller.tenant, collection)
            note(session, caller, "collection.delete", row.name, tenant=caller.tenant)
            return Answer(204, {})
        row = collections.find(session, caller.tenant, collection)
        job = DeleteDocuments(
            wanted=DocumentSelection(collection_ids=(row.id,)),
            asked_at=clock.now(),
            keep=documents == "keep",
            collection_id=row.id,
        )
        note(session, caller, "collection.delete", row.name, tenant=caller.tenant, documents=documents)
        return answer_of(enqueue(session, job, tenant=caller.tenant, request_id=caller.request_id))

    answer = await once.run(caller, work)
    return Response(status_code=204) if answer.status == 204 else await answered(request, caller.tenant, answer)
