"""Pages that changedetection.io watches for Millrace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.http.auth import Admin, Caller, Identity, Reader
from app.api.http.idempotency import Answer, Idempotent
from app.api.http.paging import ListQuery, Paging
from app.api.http.responses import answer_of, answered
from app.api.models.base import documented
from app.api.models.jobs import JOB_ACCEPTED
from app.api.models.web import WatchJob, WatchPage, WatchTemplate
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


WATCH_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: documented(WatchJob, "The job. `Location` has its address."),
    200: documented(WatchJob, "The job, which has ended."),
}


class AddWatchRequest(BaseModel):
    """A page to watch."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"url": "https://example.org/prices"}]})

    url: Annotated[
        str, Field(max_length=2000, description="The address of the page. An unknown page is fetched first.")
    ]


@router.get("/watches", summary="List watched pages, the newest first", responses={200: documented(WatchPage)})
async def list_watches(
    caller: Reader,
    paging: Paging,
    state: State | None = None,
    url: Annotated[str | None, Query(max_length=2000)] = None,
) -> dict[str, Any]:
    return await read(_page, caller, paging, state, None if url is None else storable(url))


@router.post("/watches", summary="Watch a page", status_code=202, responses=WATCH_ACCEPTED)
async def add_watch(request: Request, caller: Caller, once: Idempotent, body: AddWatchRequest) -> Response:
    """Accepts pages of any source. The job creates the watch, with notifications to this API."""
    _check_configured()

    def work(session: Session) -> Answer:
        about = About(url=body.url)
        document_id = known_id(session, about, tenant=caller.tenant)
        if document_id is None:
            row = accept_page(session, about, tenant=caller.tenant, request_id=caller.request_id)
            document_id = row.document_id
        document = session.get_one(Document, document_id)
        return _sync(session, caller, lambda: watches.want(session, document))

    return await answered(request, caller.tenant, await once.run(caller, work))


@router.post(
    "/watches:sync",
    summary="Create missing watches, and remove those of deleted pages",
    status_code=202,
    responses=JOB_ACCEPTED,
)
async def sync_watches(request: Request, caller: Caller, once: Idempotent) -> Response:
    _check_configured()
    return await answered(request, caller.tenant, await once.run(caller, lambda session: _sync(session, caller)))


@router.get(
    "/watches/template",
    summary="Get the notification settings for a watch made by hand",
    responses={200: documented(WatchTemplate)},
)
async def get_watch_template(caller: Admin) -> dict[str, Any]:
    """Returns the fields as the API of changedetection.io takes them. The address contains a token that permits to
    report changes."""
    return watch_jobs.notification_fields()


@router.delete("/watches/{document_id}", summary="Stop watching a page", status_code=202, responses=WATCH_ACCEPTED)
async def remove_watch(request: Request, caller: Caller, once: Idempotent, document_id: str) -> Response:
    def work(session: Session) -> Answer:
        document = catalog.get(session, caller.tenant, document_id, lock=True)
        _check_configured()
        return _sync(session, caller, lambda: watches.unwant(session, caller.tenant, document.id))

    return await answered(request, caller.tenant, await once.run(caller, work))


def _sync(session: Session, caller: Identity, change: Callable[[], PageWatch] | None = None) -> Answer:
    session.flush()
    # Lock the job row before the watch row: the job takes them in this order.
    job = enqueue(session, SyncWatches(), tenant=caller.tenant, request_id=caller.request_id)
    return answer_of(job, None if change is None else {"watch": watches.describe(change())})


def _check_configured() -> None:
    if not changedetection.is_set_up():
        raise Conflict("changedetection.io is not configured: set MILLRACE_CHANGEDETECTION_URL", code="not_set_up")


def _page(session: Session, caller: Identity, paging: ListQuery, state: str | None, url: str | None) -> dict[str, Any]:
    before, limit = paging.after_number(), paging.limit + 1
    rows = watches.list_watches(session, caller.tenant, state=state, url=url, before_id=before, limit=limit)
    return paging.cut(rows, watches.describe, lambda row: [row.id])
