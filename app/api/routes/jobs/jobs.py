"""Jobs over HTTP: list, read, wait, cancel, retry, follow."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from app.access.kinds import require_manageable_kind
from app.api.http.app_state import Events
from app.api.http.auth import Caller, Identity, KindCaller
from app.api.http.paging import MAX_ID, ListQuery, Paging
from app.api.http.responses import accepted
from app.api.http.times import utc
from app.api.http.waiting import MAX_WAIT_S, wait_for_end
from app.api.models.base import documented
from app.api.models.jobs import JOB_ACCEPTED, JobDetail, JobPage, JobSummary
from app.api.streams.resume import LastEventId, LastEventIdHeader
from app.api.streams.sse import EventStream, JobSseConnection
from app.core.db import in_transaction, read
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import is_id_prefix, is_uuid
from app.documents import catalog
from app.documents.accept.quota import within
from app.jobs.events.hub import EventHub
from app.jobs.ledger import commands, views
from app.jobs.models import JobRow
from app.jobs.states import STATES

router = APIRouter(prefix="/api", tags=["jobs"])

# Every number of up to 18 digits is below 2**63.
DOCUMENT_ID = re.compile(r"[0-9]{1,18}")
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the job's end.")]
NO_MORE_EVENTS = {"description": "The client has received all events up to the end."}


@router.get("/jobs", summary="List jobs, the newest first", responses={200: documented(JobPage)})
async def list_jobs(
    caller: KindCaller,
    paging: Paging,
    state: Annotated[list[str] | None, Query(description="One or more states, also comma separated.")] = None,
    kind: Annotated[str | None, Query(max_length=100)] = None,
    queue: Annotated[str | None, Query(max_length=32)] = None,
    document_id: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
    parent_id: Annotated[str | None, Query(max_length=36, description="Children of this job.")] = None,
    id_prefix: Annotated[str | None, Query(max_length=36, description="Jobs whose id begins with this text.")] = None,
    error_code: Annotated[str | None, Query(max_length=100)] = None,
    fingerprint: Annotated[str | None, Query(max_length=32, description="Jobs that failed of the same fault.")] = None,
    discarded: bool | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> dict[str, Any]:
    """Jobs of the caller's tenant; a key for single kinds gets the jobs of these kinds."""
    conditions = views.JobFilter(
        states=_states(state),
        kind=kind,
        queue=queue,
        document_id=document_id,
        parent_id=_job_id(parent_id, "parent_id"),
        id_prefix=_id_prefix(id_prefix),
        error_code=error_code,
        fingerprint=fingerprint,
        discarded=discarded,
        created_after=utc(created_after, "created_after"),
        created_before=utc(created_before, "created_before"),
        before_id=paging.after_uuid(),
        only_kinds=caller.kinds("read"),
    )
    return await read(_page_of_jobs, caller.tenant, conditions, paging)


def _page_of_jobs(session: Session, tenant: str, conditions: views.JobFilter, paging: ListQuery) -> dict[str, Any]:
    rows = views.list_jobs(session, tenant, conditions, paging.limit + 1)
    names = catalog.names(session, tenant, [row.document_id for row in rows if row.document_id is not None])

    def view(row: JobRow) -> dict[str, Any]:
        return views.job_view(row) | {"document_name": names.get(row.document_id)}

    return paging.cut(rows, view, lambda row: [row.id])


def _id_prefix(text: str | None) -> str | None:
    if text is not None and not is_id_prefix(text):
        raise InvalidInput(f"id_prefix {text!r} must be the beginning of a job's id", code="id_prefix")
    return text


def _states(texts: list[str] | None) -> list[str] | None:
    states = [name.strip() for text in texts or [] for name in text.split(",") if name.strip()]
    unknown = [name for name in states if name not in STATES]
    if unknown:
        raise InvalidInput(f"state {unknown[0]!r} must be one of {', '.join(STATES)}", code="state")
    return states or None


def _job_id(text: str | None, name: str) -> str | None:
    if text is not None and not is_uuid(text):
        raise InvalidInput(f"{name} {text!r} must be the id of a job", code=name)
    return text


@router.get(
    "/jobs/{job_id}", summary="Get a job with payload, result and attempts", responses={200: documented(JobDetail)}
)
@router.get(
    "/tasks/{job_id}",
    summary="Get a job, under the path of the old service",
    operation_id="get_task",
    responses={200: documented(JobDetail)},
)
async def get_job(request: Request, caller: Caller, job_id: str, wait: Wait = 0) -> dict[str, Any]:
    """With `wait`, the answer comes when the job has ended or the time is over."""
    return await wait_for_end(request, caller.tenant, job_id, wait)


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    responses={
        200: documented(JobSummary, "The job, cancelled."),
        202: documented(JobSummary, "The job still runs; its worker has been asked to stop it."),
    },
)
async def cancel_job(caller: Caller, response: Response, job_id: str) -> dict[str, Any]:
    """409 for a job that has succeeded or failed."""
    row = await in_transaction(_cancel, caller, job_id)
    if row.state == "running":
        response.status_code = 202
        response.headers["Location"] = f"/api/jobs/{row.id}"
    return views.job_view(row)


def _cancel(session: Session, caller: Identity, job_id: str) -> JobRow:
    require_manageable_kind(caller, views.get(session, caller.tenant, job_id).kind)
    row = commands.cancel(session, caller.tenant, job_id)
    if row.state in ("succeeded", "failed"):
        raise Conflict(f"Job {job_id} has {row.state}; only an open job can be cancelled", code="job_state")
    return row


@router.post("/jobs/{job_id}/retry", summary="Retry a failed or cancelled job", status_code=202, responses=JOB_ACCEPTED)
async def retry_job(request: Request, caller: Caller, job_id: str) -> Response:
    """409 for a job that has not failed and was not cancelled."""
    return await accepted(request, await in_transaction(within, caller.tenant, _retry, caller, job_id))


def _retry(session: Session, caller: Identity, job_id: str) -> JobRow:
    require_manageable_kind(caller, views.get(session, caller.tenant, job_id).kind)
    return commands.retry(session, caller.tenant, job_id)


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job (Server-Sent Events)",
    status_code=200,
    response_class=EventStream,
    responses={200: {"description": "The events of the job; the stream closes after `end`."}, 204: NO_MORE_EVENTS},
)
async def follow_job(caller: Caller, hub: Events, job_id: str, last_event_id: LastEventId) -> Response:
    """A snapshot first, then `progress` and `state` events, `end` last.

    `Last-Event-ID` continues an interrupted stream. If that event is no longer kept, the answer begins with a
    snapshot marked `reset`.
    """
    return await _stream(hub, caller.tenant, job_id, last_event_id)


async def _stream(hub: EventHub, tenant: str, job_id: str, last_event_id: str | None) -> Response:
    connection = JobSseConnection(hub, job_id)
    return EventStream(connection) if await hub.open(connection, tenant, last_event_id) else Response(status_code=204)


@router.get(
    "/documents/{document_id}/progress",
    summary="Get or follow the latest job of a document",
    tags=["documents"],
    responses={
        200: documented(JobSummary, "The job, or its events.")
        | {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: NO_MORE_EVENTS,
    },
)
async def get_document_progress(
    request: Request, caller: Caller, hub: Events, document_id: str, last_event_id: LastEventIdHeader = None
) -> Any:
    """The job as JSON, or its events for `Accept: text/event-stream`."""
    row = await read(_latest, caller.tenant, document_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        return await _stream(hub, caller.tenant, row.id, last_event_id)
    return views.job_view(row)


def _latest(session: Session, tenant: str, document_id: str) -> JobRow:
    if not DOCUMENT_ID.fullmatch(document_id):
        raise NotFound(f"Document {document_id} not found", code="document_not_found")
    return views.latest_of_document(session, tenant, int(document_id))
