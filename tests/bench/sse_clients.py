"""Row 9: ten thousand clients that follow jobs on one api process; peers: plain streams of FastAPI and Starlette.

python -m tests.bench.sse_clients [clients] [jobs]
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path

import httpx

from app.core.db import database
from app.jobs.enqueued import EnqueuedJob
from app.jobs.events import publish
from app.jobs.events.publish import JobEvent
from app.jobs.ledger.enqueue import enqueue_many
from tests.bench.rig import Rig, rig
from tests.bench.table import Row, markdown, quantile
from tests.support.kinds import Noop
from tests.support.processes import Process, free_port
from tests.support.stack import API_SECRET, REPOSITORY
from tests.support.waiting import wait_until

CLIENTS = 10_000
JOBS = 1_000
AT_ONCE = 200
# A loopback address has some 28,000 ports; each takes this many clients.
CLIENTS_AN_ADDRESS = 20_000


class Browser(asyncio.Protocol):
    """One client: it only counts what comes and notes when."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if b"data:" in data and not self.opened.done():
            self.opened.set_result(None)
        if b"event: progress" in data and not self.received.done():
            self.received.set_result(time.perf_counter())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("closed before the first event"))


def pss_kib(pid: int) -> int:
    """Memory of the process, shared pages counted in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError(f"no Pss of {pid}")


async def connect(port: int, paths: list[str]) -> list[Browser]:
    """A client for each path, all of them past their first event."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(AT_ONCE)

    async def open_browser(number: int, path: str) -> Browser:
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {API_SECRET}\r\n\r\n".encode()
        source = (f"127.0.0.{1 + number // CLIENTS_AN_ADDRESS}", 0)
        async with gate:
            _, browser = await loop.create_connection(lambda: Browser(request), "127.0.0.1", port, local_addr=source)
            await asyncio.wait_for(browser.opened, 60)
        return browser

    return list(await asyncio.gather(*(open_browser(number, path) for number, path in enumerate(paths))))


async def disconnect(browsers: list[Browser]) -> None:
    for browser in browsers:
        if browser.transport is not None:
            browser.transport.abort()
        browser.received.cancel()
    await asyncio.sleep(1)


async def measure(port: int, pid: int, paths: list[str]) -> tuple[float, float]:
    """KiB a client, and seconds until all were served, of a server that is warm."""
    await disconnect(await connect(port, paths[:200]))
    before, began = pss_kib(pid), time.perf_counter()
    browsers = await connect(port, paths)
    took = time.perf_counter() - began
    await asyncio.sleep(2)
    grown = pss_kib(pid) - before
    await disconnect(browsers)
    return grown / len(paths), took


async def tell_all(jobs: list[EnqueuedJob], browsers: list[Browser]) -> list[float]:
    """Milliseconds from the publishing of each job's first progress to each of its clients."""
    began: list[float] = []
    for start in range(0, len(jobs), 100):
        progress = {"percent": 1.0}
        some = jobs[start : start + 100]
        batch = [JobEvent(job.id, job.tenant, "progress", "queued", 1, progress) for job in some]
        began += [time.perf_counter()] * len(batch)
        await asyncio.to_thread(publish.publish, batch)
    received_at = await asyncio.wait_for(asyncio.gather(*(browser.received for browser in browsers)), 60)
    return [(at - began[number % len(jobs)]) * 1000 for number, at in enumerate(received_at)]


async def ours(here: Rig, clients: int, count: int) -> tuple[float, float, int, list[float]]:
    """KiB a client, seconds to connect all, Redis connections, and milliseconds of an event to all of them."""
    assert here.stack.api is not None
    port, pid = here.stack.port, here.stack.api.pid
    jobs = database().transaction(enqueue_many, [Noop() for _ in range(count)], tenant="default")
    paths = [f"/api/jobs/{jobs[number % count].id}/events" for number in range(clients)]
    await disconnect(await connect(port, paths[:200]))
    before, began = pss_kib(pid), time.perf_counter()
    browsers = await connect(port, paths)
    took = time.perf_counter() - began
    await asyncio.sleep(2)
    each = (pss_kib(pid) - before) / clients
    with here.redis.client() as client:
        connections = sum(1 for entry in client.client_list() if entry["name"] == "millrace-events")
    late = await tell_all(jobs, browsers)
    await disconnect(browsers)
    async with httpx.AsyncClient(base_url=here.stack.url, trust_env=False, timeout=30) as api:
        assert (await api.get("/health")).json()["streams"] == 0
    return each, took, connections, late


async def of_everything(here: Rig, clients: int) -> tuple[float, float, list[float]]:
    """KiB a client, seconds to connect all, and milliseconds of an event to each, where all follow the whole tenant."""
    assert here.stack.api is not None
    port, pid, paths = here.stack.port, here.stack.api.pid, ["/api/events"] * clients
    [job] = database().transaction(enqueue_many, [Noop()], tenant="default")
    await disconnect(await connect(port, paths[:200]))
    before, began = pss_kib(pid), time.perf_counter()
    browsers = await connect(port, paths)
    took = time.perf_counter() - began
    await asyncio.sleep(2)
    each = (pss_kib(pid) - before) / clients
    late = await tell_all([job], browsers)
    await disconnect(browsers)
    return each, took, late


def peers(here: Rig, clients: int) -> dict[str, float]:
    """KiB a client of the plain streams."""
    kib_by_path = {}
    for path in ("/fastapi", "/starlette"):
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "tests.bench.plain_sse:app", "--port", str(port), "--no-access-log"]
        process = Process("plain-sse", command, log=here.folder / "plain.log", env=here.env, cwd=REPOSITORY)
        process.start()
        try:
            process.wait_for_port(port)
            kib_by_path[path], _ = asyncio.run(measure(port, process.pid, [path] * clients))
        finally:
            process.stop(timeout_s=5)
    return kib_by_path


def rows(clients: int = CLIENTS, count: int = JOBS) -> list[Row]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4 * clients + 1000), most))
    with rig("sqlite") as here:
        here.stack.start_api()
        wait_until(lambda: here.stack.client.get("/readyz").status_code == 200, what="the api to be ready")
        # First: what others leave free would hide what these take.
        wide, widely, lately = asyncio.run(of_everything(here, clients // 5))
        each, took, connections, late = asyncio.run(ours(here, clients, count))
        plain = peers(here, clients)
    latency = f"an event to all: p50 {quantile(late, 0.5):.0f} ms, p99 {quantile(late, 0.99):.0f} ms"
    return [
        Row(
            "9",
            f"{clients:,} SSE clients of {count:,} jobs on one api process",
            f"{each:.1f} KiB each, {connections} Redis connections, all connected in {took:.0f} s; {latency}",
            f"fastapi.sse {plain['/fastapi']:.1f} KiB, StreamingResponse {plain['/starlette']:.1f} KiB",
            "10,000 on ≤ 2 connections, ≤ 30 KiB each",
            each <= 30 and connections <= 2,
        ),
        Row(
            "9",
            f"{clients // 5:,} SSE clients of everything on one api process",
            f"{wide:.1f} KiB each, all connected in {widely:.0f} s; an event to all: "
            f"p50 {quantile(lately, 0.5):.0f} ms, p99 {quantile(lately, 0.99):.0f} ms",
            "–",
            "≤ 30 KiB each",
            wide <= 30,
        ),
    ]


def main() -> None:
    arguments = [int(word) for word in sys.argv[1:]]
    print(markdown(rows(*arguments)))


if __name__ == "__main__":
    main()
