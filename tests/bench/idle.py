"""Row 17: the whole system in one place with nothing to do: its memory, and what it asks of Redis.

python -m tests.bench.idle; the peer is a stock set: Dramatiq with as many threads, uvicorn with one route, Redis.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from app.jobs.queues import QUEUES
from tests.bench.table import Row, markdown
from tests.support.command import millrace
from tests.support.processes import Process, free_port
from tests.support.services import RedisServer
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until

SETTLE_S = 20.0
WATCH_S = 20.0
MAX_MEMORY_MIB = 450
MAX_COMMANDS_PER_S = 2.0
# Api, relay and worker; the scheduler asks Redis for nothing.
TALKERS = 3


def pss_mib(mark: str) -> float:
    """Proportional memory of every process whose environment holds the mark."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                rollup = (process / "smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])  # type: ignore[index]
        except OSError:
            continue
    return total / 1024


def commands_a_second(url: str) -> float:
    """Return the commands a second that clients send to a Redis; calls inside a script do not count."""
    sent = 0
    with redis.Redis.from_url(url, socket_timeout=1) as client, client.monitor() as monitor:
        ends = time.monotonic() + WATCH_S
        while time.monotonic() < ends:
            try:
                command = monitor.next_command()
            except redis.TimeoutError:
                continue
            if command["client_type"] != "lua":
                sent += 1
    return sent / WATCH_S


def ours(folder: Path) -> Iterator[float]:
    """Seconds from the command to ready, MiB, commands a second."""
    port = str(free_port())
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    env = plain | {"MILLRACE_DATA_DIR": str(folder), "MILLRACE_PORT": port, "PYTHONPATH": str(REPOSITORY)}
    log = folder.with_suffix(".log")
    single = Process("single", [sys.executable, "-m", "app", "single"], log=log, env=env, cwd=folder)
    began = time.monotonic()
    single.start()
    try:
        wait_until(lambda: millrace("healthy", port, env=env).code == 0, timeout_s=120, what="single to be ready")
        yield time.monotonic() - began
        wait_until(lambda: "worker_started" in log.read_text(), timeout_s=120, what="its worker to be ready")
        time.sleep(SETTLE_S)
        yield pss_mib(f"MILLRACE_DATA_DIR={folder}\0")
        [url] = re.findall(r"^MILLRACE_REDIS_URL=(.*)$", (folder / ".env").read_text(), re.MULTILINE)
        yield commands_a_second(url)
    finally:
        single.stop(60)


def stock(folder: Path) -> tuple[float, float]:
    """MiB and commands a second of the stock set."""
    os.environ["STOCK_MARK"] = str(folder)
    server = RedisServer(folder, appendonly=True)
    server.process.env["STOCK_MARK"] = str(folder)
    server.start()
    env = {**os.environ, "STOCK_REDIS_URL": server.url, "PYTHONPATH": str(REPOSITORY)}
    worker = [sys.executable, "-m", "dramatiq", "tests.bench.stock", "-p", "1", "-t", "32"]
    api = [sys.executable, "-m", "uvicorn", "tests.bench.hello:app", "--port", str(free_port())]
    processes = [
        Process(name, command, log=folder / f"{name}.log", env=env, cwd=REPOSITORY)
        for name, command in (("worker", worker), ("api", api))
    ]
    try:
        for process in processes:
            process.start()
        time.sleep(SETTLE_S)
        return pss_mib(f"STOCK_MARK={folder}\0"), commands_a_second(server.url)
    finally:
        for process in processes:
            process.stop()
        server.stop()


def rows() -> list[Row]:
    with TemporaryDirectory(prefix="millrace-idle-") as name:
        folder = Path(name)
        (folder / "ours").mkdir()
        ready_s, memory, commands = ours(folder / "ours")
        peer_memory, peer_commands = stock(folder / "stock")
    each = commands / len(QUEUES) / TALKERS
    return [
        Row(
            "17",
            "everything in one place, idle: memory (PSS), Redis commands a second",
            f"{memory:.0f} MiB, {commands:.1f}/s ({each:.1f} a queue and process); ready in {ready_s:.1f} s",
            f"stock worker + uvicorn + Redis {peer_memory:.0f} MiB, {peer_commands:.1f}/s for one queue",
            f"≤ {MAX_MEMORY_MIB} MiB, ≤ {MAX_COMMANDS_PER_S:g}/s a queue and process",
            memory <= MAX_MEMORY_MIB and each <= MAX_COMMANDS_PER_S,
        )
    ]


if __name__ == "__main__":
    print(markdown(rows()))
