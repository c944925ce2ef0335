"""Event routes: the stream of a tenant, and both streams over WebSocket; a job's SSE stream is in `jobs`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response, WebSocket

from app.api.http.app_state import Events, SocketEvents
from app.api.http.auth import KindCaller, SocketCaller, SocketKindCaller
from app.api.http.paging import MAX_ID
from app.api.streams.resume import LastEventId
from app.api.streams.sse import EventStream, TenantSseConnection
from app.api.streams.websocket import JobSocket, TenantSocket
from app.core.errors import InvalidInput
from app.jobs.events.tenant_subscriber import EventFilter
from app.jobs.queues import QUEUES
from app.jobs.states import STATES

router = APIRouter(prefix="/api", tags=["events"])

NAMES = ("progress", "state", "end")
Several = Annotated[list[str] | None, Query(description="One or more, also comma separated.")]


async def _event_filter(
    kind: Annotated[list[str] | None, Query(description="Kinds, comma separated; `shop.*` matches a prefix.")] = None,
    state: Several = None,
    queue: Several = None,
    event: Annotated[list[str] | None, Query(description="progress, state, end; comma separated.")] = None,
    document_id: Annotated[int | None, Query(ge=0, le=MAX_ID, description="Only jobs of this document.")] = None,
) -> EventFilter:
    """Return the filter. Raises InvalidInput for a state, queue or event that does not exist."""
    return EventFilter(
        kinds=_split(kind),
        states=_check("state", _split(state), STATES),
        queues=_check("queue", _split(queue), QUEUES),
        names=_check("event", _split(event), NAMES),
        document_id=None if document_id is None else str(document_id),
    )


def _split(texts: list[str] | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for text in texts or [] for name in text.split(",") if name.strip()) or None


def _check(field: str, names: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...] | None:
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InvalidInput(f"{field} {unknown[0]!r} must be one of {', '.join(known)}", code=field)
    return names


FilterQuery = Annotated[EventFilter, Depends(_event_filter)]


@router.get(
    "/events",
    summary="Follow all jobs (Server-Sent Events)",
    status_code=200,
    response_class=EventStream,
    responses={200: {"description": "`open`, then events; the stream ends when the server stops."}},
)
async def follow_all_jobs(
    caller: KindCaller, hub: Events, event_filter: FilterQuery, last_event_id: LastEventId
) -> Response:
    """`open` first, then `progress`, `state` and `end` events of all jobs, each with `kind`, `queue` and `document_id`.

    `Last-Event-ID` continues an interrupted stream, on any api process. After a `reset` event some events are lost, so
    the client should read the jobs again. The last 10,000 events are kept for a day.
    """
    connection = TenantSseConnection(hub.tenants, caller.tenant, event_filter.of(caller.kinds("read")), last_event_id)
    await hub.tenants.open(connection)
    return EventStream(connection)


@router.websocket("/events/ws")
async def follow_all_jobs_over_websocket(
    websocket: WebSocket,
    caller: SocketKindCaller,
    hub: SocketEvents,
    event_filter: FilterQuery,
    last_event_id: LastEventId,
) -> None:
    """The same events as JSON texts; `last_event_id` takes the `id` of an event."""
    streams = hub.tenants
    connection = TenantSocket(websocket, streams, caller.tenant, event_filter.of(caller.kinds("read")), last_event_id)
    await streams.open(connection)
    await connection.run(websocket.receive, websocket.send)


@router.websocket("/jobs/{job_id}/ws")
async def follow_job_over_websocket(
    websocket: WebSocket, caller: SocketCaller, hub: SocketEvents, job_id: str, last_event_id: LastEventId
) -> None:
    """A job's events as JSON texts, closed with 1000 after `end`; `last_event_id` takes the `seq` of an event."""
    connection = JobSocket(websocket, hub, job_id)
    if await hub.open(connection, caller.tenant, last_event_id):
        await connection.run(websocket.receive, websocket.send)
    else:
        await connection.close_as_ended(websocket.send)
