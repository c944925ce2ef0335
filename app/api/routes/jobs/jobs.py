"""Jobs over HTTP: list, show, wait, cancel, try again, follow."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.orm import Session

from app.api.http.auth import LONGEST_WAIT_S, Caller, Events, KindCaller, Page, Paging
from app.api.http.responses import accepted, wait_for_end
from app.api.http.times import utc
from app.api.streams.sse import Client, EventStream
from app.core.db import in_transaction, read
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import is_uuid
from app.documents.accept.quota import within
from app.jobs.events.hub import EventHub
from app.jobs.ledger import commands, views
from app.jobs.models import JobRow
from app.jobs.states import STATES

router = APIRouter(prefix="/api", tags=["jobs"])

LARGEST_ID = 2**63 - 1
# Every number of up to 18 digits is below that.
DOCUMENT_ID = re.compile(r"[0-9]{1,18}")
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the job's end.")]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="Go on after this event.")]
LastEventIdQuery = Annotated[str | None, Query(alias="last_event_id", description="The same for who sets no headers.")]
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The job's events; the stream closes after `end`.",
    },
    204: {"description": "Everything up to the end has been heard."},
}


@router.get("/jobs", summary="List jobs, the newest first")
async def list_jobs(
    caller: KindCaller,
    paging: Paging,
    state: Annotated[list[str] | None, Query(description="One or more states, also comma separated.")] = None,
    kind: Annotated[str | None, Query(max_length=100)] = None,
    queue: Annotated[str | None, Query(max_length=32)] = None,
    document_id: Annotated[int | None, Query(ge=0, le=LARGEST_ID)] = None,
    parent_id: Annotated[str | None, Query(max_length=36, description="Children of this job.")] = None,
    error_code: Annotated[str | None, Query(max_length=100)] = None,
    fingerprint: Annotated[str | None, Query(max_length=32, description="Jobs that failed of the same fault.")] = None,
    discarded: bool | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> dict[str, Any]:
    wanted = views.JobFilter(
        states=_states(state),
        kind=kind,
        queue=queue,
        document_id=document_id,
        parent_id=_job_id(parent_id, "parent_id"),
        error_code=error_code,
        fingerprint=fingerprint,
        discarded=discarded,
        created_after=utc(created_after, "created_after"),
        created_before=utc(created_before, "created_before"),
        before_id=_before(paging),
        only_kinds=caller.kinds("read"),
    )
    return await read(_page_of_jobs, caller.tenant, wanted, paging)


def _page_of_jobs(session: Session, tenant: str, wanted: views.JobFilter, paging: Page) -> dict[str, Any]:
    rows = views.list_jobs(session, tenant, wanted, paging.limit + 1)
    return paging.cut(rows, views.job_view, lambda row: [row.id])


def _states(given: list[str] | None) -> list[str] | None:
    states = [name.strip() for text in given or [] for name in text.split(",") if name.strip()]
    unknown = [name for name in states if name not in STATES]
    if unknown:
        raise InvalidInput(f"state: {unknown[0]!r} is none of {', '.join(STATES)}", code="state")
    return states or None


def _job_id(given: str | None, name: str) -> str | None:
    if given is not None and not is_uuid(given):
        raise InvalidInput(f"{name}: {given!r} is no id of a job", code=name)
    return given


def _before(paging: Page) -> str | None:
    if paging.after is None:
        return None
    match paging.after:
        case [str(job_id)] if is_uuid(job_id):
            return job_id
    raise InvalidInput("the cursor is not one of ours", code="cursor")


@router.get("/jobs/{job_id}", summary="One job with payload, result and attempts")
@router.get("/tasks/{job_id}", summary="The same under its old name")
async def show_job(request: Request, caller: Caller, job_id: str, wait: Wait = 0) -> dict[str, Any]:
    return await wait_for_end(request, caller.tenant, job_id, wait)


@router.post("/jobs/{job_id}/cancel", summary="Ask a job to stop", responses={202: {"description": "It was asked."}})
async def cancel_job(caller: Caller, response: Response, job_id: str) -> dict[str, Any]:
    """200 when it has stopped, 202 while it runs; 409 when it had ended otherwise."""
    row = await in_transaction(_cancel, caller.tenant, job_id)
    if row.state == "running":
        response.status_code = 202
        response.headers["Location"] = f"/api/jobs/{row.id}"
    return views.job_view(row)


def _cancel(session: Session, tenant: str, job_id: str) -> JobRow:
    row = commands.cancel(session, tenant, job_id)
    if row.state in ("succeeded", "failed"):
        raise Conflict(f"Job {job_id} has {row.state}; only an open job can be cancelled", code="job_state")
    return row


@router.post("/jobs/{job_id}/retry", summary="Try a failed or cancelled job again", status_code=202)
async def retry_job(request: Request, caller: Caller, job_id: str) -> Response:
    return await accepted(request, await in_transaction(within, caller.tenant, commands.retry, caller.tenant, job_id))


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job (Server-Sent Events)",
    status_code=200,
    response_class=EventStream,
    responses=EVENT_STREAM,
)
async def follow_job(
    caller: Caller,
    hub: Events,
    job_id: str,
    last_event_id: LastEventId = None,
    last_event_id_query: LastEventIdQuery = None,
) -> Response:
    """A snapshot first, then `progress` and `state` events as they come, `end` last.

    `Last-Event-ID` goes on where a stream broke off; a number not known any more gets a snapshot marked `reset`.
    """
    given = last_event_id if last_event_id is not None else last_event_id_query
    return await _stream(hub, caller.tenant, job_id, given)


async def _stream(hub: EventHub, tenant: str, job_id: str, last_event_id: str | None) -> Response:
    client = Client(hub, job_id)
    return EventStream(client) if await hub.open(client, tenant, last_event_id) else Response(status_code=204)


@router.get("/documents/{document_id}/progress", summary="The latest job of a document", tags=["documents"])
async def document_progress(
    request: Request, caller: Caller, hub: Events, document_id: str, last_event_id: LastEventId = None
) -> Any:
    """The job as JSON, or its events where `Accept: text/event-stream` is sent."""
    row = await read(_latest, caller.tenant, document_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        return await _stream(hub, caller.tenant, row.id, last_event_id)
    return views.job_view(row)


def _latest(session: Session, tenant: str, document_id: str) -> JobRow:
    if not DOCUMENT_ID.fullmatch(document_id):
        raise NotFound(f"Document {document_id} not found", code="document_not_found")
    return views.latest_of_document(session, tenant, int(document_id))
