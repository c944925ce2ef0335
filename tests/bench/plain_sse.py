"""Event streams without a hub, as FastAPI and Starlette offer them; each sends one event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

app = FastAPI()


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/fastapi", response_class=EventSourceResponse)
async def fastapi_stream() -> AsyncIterator[dict[str, str]]:
    yield {"state": "queued"}
    await asyncio.Event().wait()


async def _lines() -> AsyncIterator[str]:
    yield 'event: state\ndata: {"state": "queued"}\n\n'
    await asyncio.Event().wait()


@app.get("/starlette")
async def starlette_stream() -> StreamingResponse:
    return StreamingResponse(_lines(), media_type="text/event-stream")
