"""The system under chaos: real services and processes, kept running as a supervisor would, hurt on purpose."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from app.core import db as core_db
from app.core import logging
from app.core import redis as core_redis
from app.core.db import Database
from app.core.errors import Unavailable
from app.core.settings import get_settings
from tests.support.chaos_kinds import EFFECT
from tests.support.databases import make_schema, make_stack_env
from tests.support.processes import Process, listens
from tests.support.services import PostgresServer, RedisServer
from tests.support.stack import API_SECRET, Stack
from tests.support.waiting import wait_until

_PR_SET_CHILD_SUBREAPER = 36

# A death is seen in 3 s instead of 12, a drain ends in 2 instead of 30: a round takes a second or two.
SETTINGS = {
    "MILLRACE_MODULES": "tests.support.chaos_kinds",
    "MILLRACE_WORKER_THREADS": "6",
    "MILLRACE_WORKER_DEAD_S": "3",
    "MILLRACE_BEAT_S": "0.5",
    "MILLRACE_GRACE_S": "2",
    "MILLRACE_SANDBOXES": "2",
    "MILLRACE_LOG_LEVEL": "info",
}
MAX_STOP_S = 20.0
MAX_START_S = 60.0


@dataclass
class System:
    """Three workers, two relays, an api, a Redis and a database."""

    folder: Path
    dialect: str
    workers: int = 3
    relays: int = 2
    asked_to_end: dict[str, float] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _frozen: set[str] = field(default_factory=set)

    def start(self) -> None:
        adopt_orphans()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.redis = RedisServer(self.folder / "redis", appendonly=True)
        self.postgres: PostgresServer | None = None
        url = self._database_url()
        make_schema(url)
        self.redis.start()
        env = make_stack_env(url, self.redis.url, self.folder) | SETTINGS
        self._steer_this_process(env)
        EFFECT.metadata.create_all(self.database.engine)
        self.stack = Stack(self.folder / "logs", env, API_SECRET)
        self.stack.start_api(wait=False)
        for _ in range(self.workers):
            self.stack.add_worker(wait=False)
        for _ in range(self.relays):
            self.stack.add_relay(wait=False)
        self.settle()

    def _database_url(self) -> str:
        if self.dialect == "sqlite":
            return f"sqlite:///{self.folder / 'millrace.db'}"
        self.postgres = PostgresServer()
        # What was committed must survive an immediate shutdown, else the loss would be the harness's own.
        command = self.postgres.process.command
        self.postgres.process.command = [word.replace("commit=off", "commit=on") for word in command]
        self.postgres.start()
        return self.postgres.create_database("chaos")

    def _steer_this_process(self, env: dict[str, str]) -> None:
        """The jobs are enqueued from here, with the library that an api uses."""
        os.environ.update({name: value for name, value in env.items() if name.startswith("MILLRACE_")})
        core_db.close_database()
        core_redis.push.cache_clear()
        get_settings.cache_clear()
        os.environ["MILLRACE_LOG_LEVEL"] = "error"  # what Redis does to us here is no news
        logging.setup("cli")

    @property
    def database(self) -> Database:
        return core_db.database()

    # A supervisor's work

    def supervise(self, seconds: float) -> None:
        """Go on for so long: start what has ended, do what was put off."""
        until = time.monotonic() + seconds
        while True:
            self._do_what_is_due()
            for process in self.stack.processes:
                if process.exit_code is not None and process.name not in self._frozen:
                    self._start_again(process)
            reap_orphans({process.pid for process in self.own_processes()})
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.1, left))

    def _start_again(self, process: Process) -> None:
        code = process.exit_code or 0
        asked_at = self.asked_to_end.pop(process.name, None)
        if asked_at is not None or code > 0:
            kind = process.name.split("-")[0]
            name = f"{kind} {'asked to end' if asked_at is not None else 'by itself'}: exit code {code}"
            self.exits[name] = self.exits.get(name, 0) + 1
        process.start()

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + delay_s, act))

    @property
    def something_put_off(self) -> bool:
        return bool(self._later)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()

    def settle(self) -> None:
        """No fault under way any more: everything thawed, started and serving."""
        deadline = time.monotonic() + MAX_START_S
        while self._later or self.asked_to_end or not self._all_serve():
            self.supervise(0.2)
            late = [name for name, at in self.asked_to_end.items() if time.monotonic() - at > MAX_STOP_S]
            tails = "\n".join(process.tail(60) for process in self.stack.processes if process.name in late)
            assert not late, f"asked to end {MAX_STOP_S:g} s ago and still there: {late}\n{tails}"
            idle = [process.tail(20) for process in self.stack.processes if not self._serves(process)]
            assert time.monotonic() < deadline, "these do not serve:\n" + "\n".join(idle)

    def _all_serve(self) -> bool:
        return all(self._serves(process) for process in self.stack.processes)

    def _serves(self, process: Process) -> bool:
        port = self.stack.port if process is self.stack.api else self.stack.health_port(process)
        return process.alive and listens(port)

    # What a fault takes hold of

    def pick_worker(self, rng: random.Random) -> Process | None:
        """A worker that nothing else happens to just now."""
        free = [w for w in self.stack.workers if w.alive and w.name not in self._frozen | set(self.asked_to_end)]
        return rng.choice(free) if free else None

    def ask_to_end(self, process: Process, *, group: bool) -> None:
        self.asked_to_end.setdefault(process.name, time.monotonic())
        if group:
            process.signal_group(signal.SIGTERM)
        else:
            process.term()

    def freeze(self, process: Process, seconds: float) -> None:
        self._frozen.add(process.name)
        process.freeze()

        def wake() -> None:
            process.wake()
            self._frozen.discard(process.name)

        self.later(seconds, wake)

    def child_of(self, worker: Process) -> int | None:
        """The process that runs the jobs: Dramatiq's master has just one such child."""
        for pid in children_of(worker.pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if any(word.endswith(b"dramatiq") for word in words):
                    return pid
        return None

    def empty_redis(self) -> None:
        """Kill Redis and delete its files, so that an empty one starts next."""
        self.redis.kill()
        for path in self.redis.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".log":
                path.unlink()
        self.redis.start()

    def restart_postgres(self) -> None:
        """Shut PostgreSQL down at once, without waiting for clients; the next start recovers from the log."""
        assert self.postgres is not None
        self.postgres.process.signal(signal.SIGQUIT)
        self.postgres.process.wait(20)
        self.postgres.start()

    # What is left

    def own_processes(self) -> list[Process]:
        services = [self.redis.process] + ([self.postgres.process] if self.postgres else [])
        return [*self.stack.processes, *services]

    def surviving_processes(self) -> list[str]:
        """Return processes that outlive their parent; empty where the kernel does not report them."""
        ours = {process.pid for process in self.own_processes() if process.alive}
        orphans = [pid for pid in children_of(os.getpid()) if pid not in ours]
        return [f"{pid} {_words(pid)}" for pid in orphans if _state(pid) not in ("Z", "")]

    def worker_rows_alive(self) -> int:
        statement = sa.text("SELECT count(*) FROM worker WHERE state IN ('running', 'draining')")
        return int(self.database.read(lambda session: session.scalar(statement)) or 0)

    def end_orphans(self) -> None:
        for pid in children_of(os.getpid()):
            if pid not in {process.pid for process in self.own_processes() if process.alive}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        with suppress(AssertionError, Unavailable):
            if hasattr(self, "stack"):
                self.stack.end()
        core_db.close_database()
        if hasattr(self, "redis"):
            self.redis.process.stop()
        if getattr(self, "postgres", None) is not None:
            assert self.postgres is not None
            self.postgres.remove()
        if hasattr(self, "stack"):
            self.end_orphans()

    def wait_until_database(self) -> None:
        def answers() -> bool:
            with suppress(Unavailable):
                self.database.ping()
                return True
            return False

        wait_until(answers, timeout_s=30, what="the database")


def adopt_orphans() -> None:
    """Become the parent of orphaned processes, so that all of them are found (Linux only)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(known: set[int]) -> None:
    for pid in children_of(os.getpid()):
        if pid not in known and _state(pid) == "Z":
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def children_of(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += [int(word) for word in (task / "children").read_text().split()]
    return children


def _state(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _words(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return ""
