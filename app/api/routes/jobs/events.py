"""Event routes: the stream of a tenant, and a job over WebSocket; its SSE stream is in `jobs`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response, WebSocket

from app.api.http.auth import Events, KindCaller, SocketCaller, SocketEvents, SocketKindCaller
from app.api.routes.jobs.jobs import LARGEST_ID, LastEventId, LastEventIdQuery
from app.api.streams.sse import EventStream, TenantClient
from app.api.streams.websocket import SocketClient, TenantSocket
from app.core.errors import InvalidInput
from app.jobs.events.tenant_subscriber import EventFilter
from app.jobs.queues import QUEUES
from app.jobs.states import STATES

router = APIRouter(prefix="/api", tags=["events"])

NAMES = ("progress", "state", "end")
Several = Annotated[list[str] | None, Query(description="One or more, also comma separated.")]


async def wanted_events(
    kind: Annotated[list[str] | None, Query(description="Kinds, comma separated; `shop.*` means all such.")] = None,
    state: Several = None,
    queue: Several = None,
    event: Annotated[list[str] | None, Query(description="progress, state, end; comma separated.")] = None,
    document_id: Annotated[int | None, Query(ge=0, le=LARGEST_ID, description="Only jobs of this document.")] = None,
) -> EventFilter:
    """Raises InvalidInput for what can never come."""
    return EventFilter(
        kinds=_several(kind),
        states=_known("state", _several(state), STATES),
        queues=_known("queue", _several(queue), QUEUES),
        names=_known("event", _several(event), NAMES),
        document_id=None if document_id is None else str(document_id),
    )


def _several(given: list[str] | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for text in given or [] for name in text.split(",") if name.strip()) or None


def _known(what: str, given: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...] | None:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise InvalidInput(f"{what}: {unknown[0]!r} is none of {', '.join(known)}", code=what)
    return given


Filter = Annotated[EventFilter, Depends(wanted_events)]
STREAM: dict[int | str, dict[str, Any]] = {200: {"description": "`open`, then events; it ends when the server stops."}}


@router.get(
    "/events",
    summary="Follow all jobs (Server-Sent Events)",
    status_code=200,
    response_class=EventStream,
    responses=STREAM,
)
async def follow_all(
    caller: KindCaller,
    hub: Events,
    wanted: Filter,
    last_event_id: LastEventId = None,
    last_event_id_query: LastEventIdQuery = None,
) -> Response:
    """`open` first, then `progress`, `state` and `end` events of all jobs, each with `kind`, `queue` and `document_id`.

    `Last-Event-ID` goes on where a stream broke off, on any api process; `reset` says that some events in between are
    lost, so that what is shown should be read anew. The last 10,000 events are kept for a day.
    """
    given = last_event_id if last_event_id is not None else last_event_id_query
    client = TenantClient(hub.tenants, caller.tenant, wanted.of(caller.kinds("read")), given)
    await hub.tenants.open(client)
    return EventStream(client)


@router.websocket("/events/ws")
async def follow_all_over_websocket(
    websocket: WebSocket,
    caller: SocketKindCaller,
    hub: SocketEvents,
    wanted: Filter,
    last_event_id: LastEventId = None,
    last_event_id_query: LastEventIdQuery = None,
) -> None:
    """The same as JSON texts; `id` in each is what `last_event_id` takes."""
    given = last_event_id if last_event_id is not None else last_event_id_query
    streams = hub.tenants
    client = TenantSocket(websocket, streams, caller.tenant, wanted.of(caller.kinds("read")), given)
    await streams.open(client)
    await client.run(websocket.receive, websocket.send)


@router.websocket("/jobs/{job_id}/ws")
async def follow_job_over_websocket(
    websocket: WebSocket,
    caller: SocketCaller,
    hub: SocketEvents,
    job_id: str,
    last_event_id: LastEventId = None,
    last_event_id_query: LastEventIdQuery = None,
) -> None:
    """A job's events as JSON texts, closed with 1000 after `end`; `seq` in each is what `last_event_id` takes."""
    given = last_event_id if last_event_id is not None else last_event_id_query
    client = SocketClient(websocket, hub, job_id)
    if await hub.open(client, caller.tenant, given):
        await client.run(websocket.receive, websocket.send)
    else:
        await client.say_nothing(websocket.send)
