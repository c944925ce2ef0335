"""An api in this process: the real application under the real server, in a thread, on a free port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI

from app.api.http.server import options
from app.core.db import database
from app.core.settings import get_settings
from app.jobs.definition import Job
from app.jobs.enqueued import EnqueuedJob
from app.jobs.events.hub import EventHub
from app.jobs.ledger.enqueue import enqueue
from app.main import create_app
from tests.support.contract import check_answer
from tests.support.databases import SettingsEnv
from tests.support.processes import free_port
from tests.support.stack import API_SECRET
from tests.support.waiting import wait_until


@schemathesis.serializer("application/x-ndjson")
def lines(ctx: schemathesis.SerializationContext, value: object) -> bytes:
    """A generated body as it is: whatever text it may be."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


class Errand(Job, kind="tests.unit.api.errand", queue="default", stages={"go": 1, "come": 3}):
    """A job that no worker here knows: it stays where the test puts it."""

    note: str = ""


# Every answer to these clients fits the OpenAPI document.
CHECKED = {"response": [check_answer]}

# Read once; a client that reads them for itself takes 25 ms longer.
_AUTHORITIES = httpx.create_ssl_context(trust_env=False)


class Server(uvicorn.Server):
    """Uvicorn's own, but it looks each 10 ms whether it is to stop, and then waits only for what is open."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0.01)
        await self.lifespan.shutdown()


class Api:
    """A served application; `client` has the secret, `anyone` has not."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.app = app
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {API_SECRET}"}
        self.client = httpx.Client(
            base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=_AUTHORITIES, event_hooks=CHECKED
        )
        self.anyone = httpx.Client(
            base_url=self.url, timeout=20, trust_env=False, verify=_AUTHORITIES, event_hooks=CHECKED
        )

    @property
    def hub(self) -> EventHub:
        hub: EventHub = self.app.state.hub
        return hub


@contextmanager
def served(app: FastAPI) -> Iterator[Api]:
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, **options(get_settings()))
    server = Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    api = Api(app, port)
    try:
        wait_until(lambda: server.started, what="the server to start")
        yield api
    finally:
        api.client.close()
        api.anyone.close()
        if server.started:
            app.state.hub.hang_up_soon()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def api(app_env: SettingsEnv) -> Iterator[Api]:
    """On SQLite and on PostgreSQL, with Redis."""
    with served(create_app()) as running:
        wait_until(lambda: running.hub.has_redis, what="the hub to reach Redis")
        yield running


@pytest.fixture
def lite_api(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    """On SQLite alone, for what does not depend on the database."""
    settings_env(database_url=sqlite_url, redis_url=redis_url)
    with served(create_app()) as running:
        wait_until(lambda: running.hub.has_redis, what="the hub to reach Redis")
        yield running


@pytest.fixture
def errand() -> Callable[..., EnqueuedJob]:
    """Enqueues a job: `errand(note="x")`."""

    def make(note: str = "", document_id: int | None = None, tenant: str = "default") -> EnqueuedJob:
        return database().transaction(
            lambda session: enqueue(session, Errand(note=note), tenant=tenant, document_id=document_id)
        )

    return make
