"""The live stream of a page: the jobs in view, merged to at most four frames a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import Query, Request, Response
from starlette.responses import StreamingResponse

from app.core import clock
from app.core.errors import AppError, InvalidInput, NotFound
from app.core.ids import is_uuid
from app.dashboard.routing import router as make_router
from app.dashboard.security import HEADERS
from app.dashboard.visitor import Reader, visitor_of
from app.jobs.events.hub import EventHub
from app.jobs.events.subscribers import JobSubscriber

router = make_router()

FRAME_S = 0.25
KEEP_ALIVE_S = 15.0
# The session is checked again this often, so that a revoked key ends its streams.
CHECK_S = 4.0
MAX_JOBS = 200
SHOWN = ("percent", "stage", "done", "total", "unit", "message")


class RowSubscriber(JobSubscriber):
    """A row of a page; it wakes the stream that all rows of the page share."""

    def __init__(self, hub: EventHub, job_id: str, changed: asyncio.Event) -> None:
        super().__init__(hub, job_id)
        self._changed = changed

    def wake(self) -> None:
        self._changed.set()


@router.get("/live")
async def stream_rows(request: Request, visitor: Reader, job: Annotated[list[str] | None, Query()] = None) -> Response:
    """Frames `rows`: {job id: {state, percent, stage, …}}. `ended`: a job's id. `bye`: the session has ended."""
    ids = list(dict.fromkeys(job or ()))
    if not ids or len(ids) > MAX_JOBS or not all(map(is_uuid, ids)):
        raise InvalidInput(f"job must be 1 to {MAX_JOBS} ids of jobs", code="job")
    headers = {**HEADERS, "X-Accel-Buffering": "no"}
    frames = _frames(request, visitor.tenant, ids)
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


async def _frames(request: Request, tenant: str, ids: list[str]) -> AsyncIterator[str]:
    hub: EventHub = request.app.state.hub
    changed = asyncio.Event()
    rows: list[RowSubscriber] = []
    try:
        for job_id in ids:
            row = RowSubscriber(hub, job_id, changed)
            try:
                await hub.open(row, tenant)
            except NotFound:
                continue
            rows.append(row)
        changed.set()
        yield "retry: 2000\n\n"
        async for frame in _merged(request, rows, changed):
            yield frame
    finally:
        for row in rows:
            row.leave()


async def _merged(request: Request, rows: list[RowSubscriber], changed: asyncio.Event) -> AsyncIterator[str]:
    checked_at = sent_at = clock.monotonic()
    open_rows = set(rows)
    while open_rows:
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), CHECK_S)
        changed.clear()
        now = clock.monotonic()
        if now - checked_at >= CHECK_S:
            checked_at = now
            try:
                await visitor_of(request)
            except AppError:
                yield "event: bye\ndata: signed_out\n\n"
                return
        if any(row.hung_up for row in open_rows):
            yield "event: bye\ndata: stopping\n\n"
            return
        frame, ended = await _take(open_rows)
        if frame:
            sent_at = now
            yield f"event: rows\ndata: {json.dumps(frame)}\n\n"
        for job_id in ended:
            yield f"event: ended\ndata: {job_id}\n\n"
        if now - sent_at >= KEEP_ALIVE_S:
            sent_at = now
            yield ": \n\n"
        await asyncio.sleep(FRAME_S)


async def _take(open_rows: set[RowSubscriber]) -> tuple[dict[str, Any], list[str]]:
    """Return the newest state of each row that changed, and the ids of the jobs that ended."""
    frame: dict[str, Any] = {}
    ended = []
    for row in [row for row in open_rows if row.is_due]:
        events, more = await row.next()
        for event in events:
            data = json.loads(event.text)
            progress = data.get("progress") or data
            frame[row.job_id] = {"state": data.get("state")} | {name: progress.get(name) for name in SHOWN}
        if not more:
            open_rows.discard(row)
            ended.append(row.job_id)
    return frame, ended
