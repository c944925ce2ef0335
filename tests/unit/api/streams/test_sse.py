"""One client of an event stream, with the server's side of the connection in the test's hand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from app.api.streams.sse import KEEP_ALIVE, JobSseConnection, TenantSseConnection
from app.jobs.events.hub import EventHub
from app.jobs.events.publish import JobEvent, publish
from app.jobs.events.subscribers import MAX_WAITING_EVENTS
from app.jobs.events.tenant_subscriber import MAX_WAITING_TENANT_EVENTS, EventFilter
from app.jobs.models import JobRow
from tests.support.databases import SettingsEnv
from tests.support.job_events import set_job
from tests.support.stream_events import event
from tests.support.waiting import wait_until_async

Make = Callable[..., JobRow]
pytestmark = pytest.mark.anyio


class Connection:
    """A socket that takes bytes only while it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.gone = asyncio.Event()
        self.written: list[bytes] = []
        self.ended = False

    async def send(self, message: Any) -> None:
        await self.open.wait()
        self.written.append(message.get("body", b""))
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.ended = True
            self.gone.set()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def text(self) -> str:
        return b"".join(self.written).decode()


@pytest.fixture
def _environment(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_url)


async def opened(hub: EventHub, job_id: str) -> tuple[JobSseConnection, Connection, asyncio.Task[None]]:
    client, connection = JobSseConnection(hub, job_id), Connection()
    assert await hub.open(client, "default")
    task = asyncio.create_task(client.run(connection.receive, connection.send))
    await wait_until_async(_says(connection, "snapshot"), what="the snapshot")
    return client, connection, task


def _says(connection: Connection, word: str) -> Any:
    async def word_arrived() -> bool:
        return word in connection.text

    return word_arrived


async def _ended(hub: EventHub, task: asyncio.Task[None]) -> None:
    await asyncio.wait_for(task, 5)
    assert hub.subscriber_count == 0
    await hub.close()


@pytest.mark.usefixtures("_environment")
async def test_a_slow_client_gets_the_newest_progress_and_every_state(errand: Make) -> None:
    hub = EventHub()
    hub.start()
    client, connection, task = await opened(hub, errand().id)
    connection.open.clear()
    for coming in [event(1, "state"), *(event(seq) for seq in range(2, 500)), event(500, "end", "succeeded")]:
        client.offer(coming)
        await asyncio.sleep(0)
    connection.open.set()
    await wait_until_async(_says(connection, "event: end"), what="the end")
    assert connection.text.count("event: progress") <= 2
    assert "id: 499\n" in connection.text
    assert connection.ended
    await _ended(hub, task)


@pytest.mark.usefixtures("_environment")
async def test_a_client_that_missed_too_much_gets_a_fresh_snapshot(errand: Make) -> None:
    hub = EventHub()
    hub.start()
    job = errand()
    client, connection, task = await opened(hub, job.id)
    connection.open.clear()
    for seq in range(1, 3 * MAX_WAITING_EVENTS):
        client.offer(event(seq, "state", "retrying" if seq % 2 else "queued", seq))
        await asyncio.sleep(0)
    set_job(job, state="running", progress={"percent": 77, "seq": 900})
    connection.open.set()
    await wait_until_async(_says(connection, '"reset": true'), what="the reset")
    assert '"percent": 77' in connection.text
    connection.gone.set()
    await _ended(hub, task)


@pytest.mark.usefixtures("_environment")
async def test_a_tenants_slow_follower_reads_everything_later_and_once(errand: Make) -> None:
    hub, job, connection = EventHub(), errand(), Connection()
    hub.start()
    await wait_until_async(_reached(hub), what="the hub to reach Redis")
    client = TenantSseConnection(hub.tenants, "default", EventFilter(names=("state",)), None)
    await hub.tenants.open(client)
    task = asyncio.create_task(client.run(connection.receive, connection.send))
    await wait_until_async(_says(connection, "event: open"), what="the opening")
    connection.open.clear()
    for start in range(0, 3 * MAX_WAITING_TENANT_EVENTS, 100):
        coming = [JobEvent(job.id, "default", "state", "running", 1, {"done": start + n}) for n in range(100)]
        await asyncio.to_thread(publish, coming)
    connection.open.set()
    await wait_until_async(_says(connection, f'"done": {3 * MAX_WAITING_TENANT_EVENTS - 1},'), what="the last event")
    numbers = [int(number) for number in re.findall(r'"done": (\d+)', connection.text)]
    assert numbers == list(range(3 * MAX_WAITING_TENANT_EVENTS))
    assert "event: reset" not in connection.text
    client.keep_alive()
    await wait_until_async(_says(connection, f"\n\nid: {client.position}\n\n"), what="the place as a sign of life")
    connection.gone.set()
    await _ended(hub, task)


def _reached(hub: EventHub) -> Any:
    async def reached() -> bool:
        return hub.has_redis

    return reached


@pytest.mark.usefixtures("_environment")
async def test_a_silent_stream_is_kept_alive_and_a_stopping_one_ended(errand: Make) -> None:
    hub = EventHub(keep_alive_s=0.05)
    hub.start()
    _, connection, task = await opened(hub, errand().id)
    await wait_until_async(_says(connection, KEEP_ALIVE.decode()), what="a sign of life")
    hub.hang_up()
    await asyncio.wait_for(connection.gone.wait(), 5)
    assert connection.text.rstrip().splitlines()[-1].startswith("retry: ")
    await _ended(hub, task)


@pytest.mark.usefixtures("_environment")
async def test_disconnected_client_frees_its_resources(errand: Make) -> None:
    hub = EventHub()
    hub.start()
    _, connection, task = await opened(hub, errand().id)
    connection.open.clear()
    connection.gone.set()
    await _ended(hub, task)
