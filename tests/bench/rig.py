"""Set-up of a benchmark: a Redis, a database of either kind with its real durability, and worker processes."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.core import db, redis
from app.core.settings import get_settings
from app.jobs.admission.push import window
from tests.bench import stock
from tests.support.databases import make_schema
from tests.support.processes import Process
from tests.support.services import PostgresServer, RedisServer
from tests.support.stack import API_SECRET, REPOSITORY, Stack

DATABASES = ("sqlite", "postgresql")


class Rig:
    """One database and one Redis; `env` is what our processes and this one run with."""

    def __init__(self, folder: Path, database_url: str, redis_server: RedisServer) -> None:
        self.folder = folder
        self.redis = redis_server
        self.env = {
            **os.environ,
            "MILLRACE_RATE_LIMITS": "off",
            "MILLRACE_DATABASE_URL": database_url,
            "MILLRACE_REDIS_URL": redis_server.url,
            "MILLRACE_DATA_DIR": str(folder),
            "MILLRACE_API_SECRET": API_SECRET,
            "MILLRACE_MODULES": "tests.support.kinds",
            "MILLRACE_LOG_LEVEL": "warning",
            "STOCK_REDIS_URL": redis_server.url,
        }
        self.stack = Stack(folder / "stack", self.env, API_SECRET)
        self._others: list[Process] = []

    def enter(self) -> None:
        """Make this process one of the system's: its enqueue, its ledger."""
        leave()
        os.environ.update({name: value for name, value in self.env.items() if name.startswith("MILLRACE_")})
        get_settings.cache_clear()
        redis.push.cache_clear()
        stock.connect(self.redis.url)

    def stock_workers(self, processes: int, threads: int) -> Process:
        command = [sys.executable, "-m", "dramatiq", "tests.bench.stock", "-p", str(processes), "-t", str(threads)]
        process = Process("stock", command, log=self.folder / "stock.log", env=self.env, cwd=REPOSITORY)
        process.start()
        self._others.append(process)
        return process

    def end(self) -> None:
        self.stack.end()
        for process in self._others:
            process.term()
            process.stop(timeout_s=10)
        leave()


def leave() -> None:
    db.close_database()
    window.clear()


@contextmanager
def rig(kind: str, settings: Mapping[str, str] | None = None) -> Iterator[Rig]:
    """A rig on SQLite or PostgreSQL; PostgreSQL commits durably, as users run it."""
    with TemporaryDirectory(prefix="millrace-bench-") as name:
        folder = Path(name)
        server = RedisServer(folder / "redis")
        server.start()
        postgres: PostgresServer | None = None
        made: Rig | None = None
        try:
            if kind == "postgresql":
                postgres = PostgresServer(durable=True)
                postgres.start()
                url = postgres.create_database(f"bench_{uuid.uuid4().hex[:8]}")
            else:
                url = f"sqlite:///{folder / 'bench.db'}"
            make_schema(url)
            made = Rig(folder, url, server)
            made.env.update(settings or {})
            made.stack.env.update(settings or {})
            made.enter()
            yield made
        finally:
            if made is not None:
                made.end()
            if postgres is not None:
                postgres.remove()
            server.stop()
