"""Pages that changedetection.io watches for us."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Admin, Caller, Identity, Reader
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import Page, Paging
from app.api.http.responses import answer_of, answered
from app.clients import changedetection
from app.core.db import read
from app.core.errors import Conflict
from app.core.sql import storable
from app.documents import catalog
from app.documents.accept.accept import About, known_id
from app.documents.models import Document
from app.jobs.ledger.enqueue import enqueue
from app.sources.changes import watch_jobs, watches
from app.sources.changes.jobs import SyncWatches
from app.sources.models import PageWatch
from app.sources.pages import accept_page

router = APIRouter(prefix="/api", tags=["intake"])

State = Literal["wanted", "present", "unwanted", "removed", "failed"]


class GivenWatch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(max_length=2000, description="The page's; one that is not known yet is fetched.")]


@router.get("/watches", summary="Watched pages, the newest first")
async def list_watches(
    caller: Reader,
    paging: Paging,
    state: State | None = None,
    url: Annotated[str | None, Query(max_length=2000)] = None,
) -> dict[str, Any]:
    return await read(_page, caller, paging, state, None if url is None else storable(url))


@router.post("/watches", summary="Have a page watched", status_code=202)
async def add_watch(request: Request, caller: Caller, once: Idempotent, body: GivenWatch) -> Response:
    """Whatever its source; the job makes the watch, with notifications that come here."""
    _check_set_up()

    def work(session: Session) -> Answer:
        about = About(url=body.url)
        found = known_id(session, about, tenant=caller.tenant)
        if found is None:
            row = accept_page(session, about, tenant=caller.tenant, request_id=caller.request_id)
            found = row.document_id
        document = session.get_one(Document, found)
        return _synced(session, caller, lambda: watches.want(session, document))

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


@router.post(
    "/watches:sync",
    summary="Give each page its watch, and remove those of pages that are gone",
    status_code=202,
)
async def sync_watches(request: Request, caller: Caller, once: Idempotent) -> Response:
    _check_set_up()
    return await answered(
        request, caller.tenant, await once.run(caller.tenant, lambda session: _synced(session, caller))
    )


@router.get("/watches/template", summary="What a watch made by hand needs in order to tell us")
async def template(caller: Admin) -> dict[str, Any]:
    """`notification_urls`, `notification_body` and `notification_format`, as changedetection.io's API takes them. The
    address holds a token: who has it may tell of changes."""
    return watch_jobs.notification_fields()


@router.delete("/watches/{document_id}", summary="Watch a page no more", status_code=202)
async def remove_watch(request: Request, caller: Caller, once: Idempotent, document_id: str) -> Response:
    def work(session: Session) -> Answer:
        document = catalog.get(session, caller.tenant, document_id, lock=True)
        _check_set_up()
        return _synced(session, caller, lambda: watches.unwant(session, caller.tenant, document.id))

    return await answered(request, caller.tenant, await once.run(caller.tenant, work))


def _synced(session: Session, caller: Identity, change: Callable[[], PageWatch] | None = None) -> Answer:
    session.flush()
    # The job's row first and the watch's after it, the order in which the job itself takes them.
    job = enqueue(session, SyncWatches(), tenant=caller.tenant, request_id=caller.request_id)
    return answer_of(job, None if change is None else {"watch": watches.describe(change())})


def _check_set_up() -> None:
    if not changedetection.is_set_up():
        raise Conflict("no changedetection.io is set up here: MILLRACE_CHANGEDETECTION_URL", code="not_set_up")


def _page(session: Session, caller: Identity, paging: Page, state: str | None, url: str | None) -> dict[str, Any]:
    before, most = paging.after_number(), paging.limit + 1
    rows = watches.list_watches(session, caller.tenant, state=state, url=url, before_id=before, limit=most)
    return paging.cut(rows, watches.describe, lambda row: [row.id])
