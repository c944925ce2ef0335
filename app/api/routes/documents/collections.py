"""Collections over HTTP: make, list, rename, delete; and what a key for some of them reaches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Caller, CollectionCaller, Identity, Page, Paging
from app.api.http.idempotency import OnceOnly
from app.api.http.responses import answer_of, answered
from app.api.routes.admin.keys import note
from app.core import clock
from app.core.db import in_transaction, read
from app.core.errors import InvalidInput, NotAllowed, NotFound
from app.core.sql import storable
from app.documents import collections
from app.documents.jobs import DeleteDocuments, DocumentSelection
from app.documents.models import Collection
from app.jobs.idempotency import Answer
from app.jobs.ledger.enqueue import enqueue
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["collections"])

Title = Annotated[str, Field(max_length=200)]
Description = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class CollectionRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    title: Title = ""
    description: Description = ""


class CollectionChange(BaseModel):
    """Only what is given changes."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    title: Title | None = None
    description: Description | None = None


def reach(session: Session, caller: Identity, scope: str) -> tuple[int, ...] | None:
    """The ids of the collections whose documents the caller may read or write; None means all there is."""
    given = caller.collections(scope)
    return None if given is None else collections.find_reached(session, caller.tenant, given)


def reach_of(session: Session, caller: Identity, scope: str, names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The same of these collections alone, where any are named. Raises NotFound for one that is out of reach."""
    whole = reach(session, caller, scope)
    if not names:
        return whole
    wanted = collections.ids(session, caller.tenant, names)
    if whole is not None and not set(wanted) <= set(whole):
        raise NotFound("Collection not found", code="collection_not_found")
    return wanted


def target(caller: Identity, name: str | None) -> str | None:
    """The collection that a new document goes to. Raises NotAllowed where the caller may not write there."""
    given = caller.collections(scopes.WRITE)
    if given is None:
        return name
    if name is None and len(given) == 1 and not given[0].endswith("*"):
        return given[0]
    if name is None:
        raise NotAllowed("this key is for some collections: say which with `collection`", code="scope_missing")
    if not scopes.among(name, given):
        raise NotAllowed(f"this key may not write to the collection {name}", code="scope_missing")
    return name


@router.post("/collections", summary="Make a collection", status_code=201)
async def create_collection(request: Request, caller: Caller, once: OnceOnly, body: CollectionRequest) -> Response:
    def work(session: Session) -> Answer:
        texts = {"title": storable(body.title), "description": storable(body.description)}
        row = collections.create(session, caller.tenant, body.name, **texts)
        return Answer(201, collections.views(session, caller.tenant, [row])[0])

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


@router.get("/collections", summary="List collections by name")
async def list_collections(caller: CollectionCaller, paging: Paging) -> dict[str, Any]:
    """With what is in each now."""
    return await read(_page, caller, paging)


def _page(session: Session, caller: Identity, paging: Page) -> dict[str, Any]:
    match paging.after:
        case None:
            after = None
        case [str(after)] if storable(after) == after:
            pass
        case _:
            raise InvalidInput("the cursor is not one of ours", code="cursor")
    only = reach(session, caller, scopes.READ)
    rows = collections.list_collections(session, caller.tenant, only=only, after=after, limit=paging.limit + 1)
    shown = {view["name"]: view for view in collections.views(session, caller.tenant, rows[: paging.limit])}
    return paging.cut(rows, lambda row: shown[row.name], lambda row: [row.name])


@router.get("/collections/{collection}", summary="One collection and what is in it")
async def show_collection(caller: CollectionCaller, collection: str) -> dict[str, Any]:
    return await read(_show, caller, collection)


def _show(session: Session, caller: Identity, name: str) -> dict[str, Any]:
    row = _in_reach(session, caller, name)
    return collections.views(session, caller.tenant, [row])[0]


def _in_reach(session: Session, caller: Identity, name: str) -> Collection:
    given = caller.collections(scopes.READ)
    if given is not None and not scopes.among(name, given):
        raise NotFound("Collection not found", code="collection_not_found")
    return collections.find(session, caller.tenant, name)


@router.patch("/collections/{collection}", summary="Rename or describe a collection")
async def change_collection(caller: Caller, collection: str, body: CollectionChange) -> dict[str, Any]:
    """Keys name a collection by its name: after a rename those that named the old one reach it no more."""
    return await in_transaction(_change, caller, collection, body)


def _change(session: Session, caller: Identity, name: str, body: CollectionChange) -> dict[str, Any]:
    given = body.model_dump(exclude_none=True)
    changes = {field: storable(value) for field, value in given.items()}
    row = collections.change(session, caller.tenant, name, changes)
    note(session, caller, "collection.change", row.name, tenant=caller.tenant, before=name)
    session.flush()
    return collections.views(session, caller.tenant, [row])[0]


@router.delete(
    "/collections/{collection}",
    summary="Delete a collection, with or without its documents",
    status_code=204,
    responses={202: {"description": "The job that deletes or frees its documents, and then the collection."}},
)
async def delete_collection(
    request: Request,
    caller: Caller,
    once: OnceOnly,
    collection: str,
    documents: Annotated[
        Literal["keep", "delete"] | None, Query(description="What becomes of its documents; needed where it has some.")
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

    answer = await once.run(caller.tenant, work)
    return Response(status_code=204) if answer.status == 204 else await answered(request, caller.tenant, answer)
