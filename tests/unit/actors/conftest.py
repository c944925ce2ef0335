"""Real worker processes on shared databases, and the ledger they work on seen from outside."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import redis
from app.core.db import database
from app.core.ids import uuid7
from app.jobs.definition import Job
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow, WorkerRow
from app.jobs.relay.relay import Relay
from tests.support.databases import SettingsEnv, make_stack_env
from tests.support.processes import Process
from tests.support.stack import API_SECRET, Stack
from tests.support.waiting import wait_until
from tests.unit.jobs.conftest import Databases, Ledger, ledger_databases

__all__ = ["ledger_databases"]


# In the environment of what a test starts, and of nothing else.
MARK = "MILLRACE_TEST_PLANT"


class Plant:
    """Workers as processes, a relay that the test turns by hand, and the ledger."""

    def __init__(self, stack: Stack, folder: Path, settings_env: SettingsEnv) -> None:
        self.stack = stack
        self.folder = folder
        self.env = stack.env
        self.ledger = Ledger(database())
        self.relay = Relay()
        self._settings_env = settings_env

    def worker(self, *options: str) -> Process:
        """A worker that has registered."""
        known = self.workers()
        worker = self.stack.add_worker(*options)
        wait_until(lambda: set(self.workers()) - set(known), timeout_s=20, what="the worker to register")
        return worker

    def workers(self, *states: str) -> list[str]:
        wanted = states or ("running", "draining")
        query = sa.select(WorkerRow.id).where(WorkerRow.state.in_(wanted))
        return database().read(lambda session: list(session.scalars(query)))

    def enqueue(self, job: Job, **options: Any) -> str:
        return database().transaction(enqueue, job, tenant="default", **options).id

    def row(self, job_id: str) -> JobRow:
        return self.ledger.row(job_id)

    def tick(self) -> None:
        """Run a relay tick with its checks of each second."""
        self.relay._slow_at = 0.0
        self.relay.tick()

    def relay_patience(self, seconds: float) -> None:
        """The relay of this test takes a worker for dead after so long."""
        self._settings_env(worker_dead_s=seconds)
        self.ledger = Ledger(database())

    def until(self, job_id: str, *states: str, timeout_s: float = 20.0, relay: bool = True) -> JobRow:
        def there() -> JobRow | None:
            if relay:
                self.tick()
            row = self.row(job_id)
            return row if row.state in states else None

        found = wait_until(
            there, timeout_s=timeout_s, poll_s=0.05, what=f"job {job_id} to be {states}; {self.told(job_id)}"
        )
        assert found is not None
        return found

    def told(self, job_id: str) -> str:
        """Where a job was at the outset of a wait, for the failure's message."""
        row = self.row(job_id)
        attempts = [(attempt.fence, attempt.outcome) for attempt in self.ledger.attempts(job_id)]
        return f"it was {row.state}, crashes {row.crashes}, admitted {row.admitted_at}, attempts {attempts}"

    def until_begun(self, job_id: str) -> None:
        """Until the start of the job's code is on record."""
        wait_until(lambda: self.row(job_id).started_at, timeout_s=20, what="the job to begin")

    def living(self) -> dict[int, str]:
        """Pids and programs of every process that was started for this test, masters, workers and sandboxes."""
        mark = self.env[MARK].encode()
        sessions = {process.pid for process in self.stack.processes}
        commands = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                # A fork shows the environment of the process that forked it; its session is that of its master.
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                is_ours = int(session) in sessions or mark in (folder / "environ").read_bytes()
                if is_ours and state != "Z" and int(folder.name) != os.getpid():
                    commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return commands

    def child_of(self, worker: Process) -> int:
        """The pid of the process that runs the jobs."""
        query = sa.select(WorkerRow.pid).where(WorkerRow.state == "running").order_by(WorkerRow.id.desc())
        pid = database().read(lambda session: session.scalars(query).first())
        assert pid is not None
        assert pid != worker.pid
        return pid

    def until_nobody_lives(self, timeout_s: float = 10.0) -> None:
        wait_until(lambda: not self.living(), timeout_s=timeout_s, what=f"nobody to live; there are {self.living()}")

    def end(self) -> None:
        for pid in self.living():
            try:
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.stack.end()


@pytest.fixture(params=["sqlite", "postgresql"])
def plant(
    request: pytest.FixtureRequest,
    ledger_databases: Databases,
    redis_url: str,
    settings_env: SettingsEnv,
    tmp_path: Path,
) -> Iterator[Plant]:
    """No worker runs yet; what a test puts into `plant.env` holds for those that it starts."""
    url = ledger_databases.url(request.param)
    settings_env(database_url=url, redis_url=redis_url)
    env = make_stack_env(url, redis_url, tmp_path)
    env |= {
        "MILLRACE_MODULES": "tests.support.kinds",
        "MILLRACE_BEAT_S": "0.5",
        "MILLRACE_LOG_LEVEL": "debug",
        MARK: (mark := uuid7()),
        # The environment of sandboxes is blank but for a few names.
        "MILLRACE_PROGRAM": mark,
    }
    redis.push()
    made = Plant(Stack(tmp_path / "logs", env, API_SECRET), tmp_path, settings_env)
    try:
        yield made
    finally:
        made.end()
        print(made.stack.logs(200))


def pass_time(seconds: float) -> None:
    """For what is defined by a time that must have passed."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, timeout_s=seconds + 5, what="time to pass")
