"""Fixtures and helpers of the job tests: rows in any state, a registered worker, ways to read them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from app.core import clock, redis
from app.core.db import Database, database
from app.core.ids import uuid7
from app.documents.models import InstallationFact
from app.jobs.admission import admit, limits, push
from app.jobs.admission.push import QueuedRef
from app.jobs.definition import Job
from app.jobs.ledger import workers
from app.jobs.ledger.ends import End
from app.jobs.ledger.enqueue import enqueue_many
from app.jobs.ledger.parent_progress import parent_progress
from app.jobs.models import (
    JOB,
    AttemptRow,
    DebouncedRow,
    JobRow,
    LimitRow,
    ScheduleRow,
    ScheduleTickRow,
    ThrottleRow,
    WorkerRow,
)
from app.jobs.queues import QUEUES
from app.jobs.states import Outcome, State
from app.jobs.worker.outcome import judge
from app.jobs.worker.process import WorkerProcess
from app.jobs.worker.progress import Progress
from app.jobs.worker.run import Run
from app.tenants.directory import QUOTAS
from app.tenants.models import Tenant
from tests.support.databases import TEMPLATE, SettingsEnv
from tests.support.services import PostgresServer
from tests.support.waiting import wait_until

# The default renders the locals of every frame of a traceback, a second each.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])

WORKER = "00000000-0000-7000-8000-000000000001"


class Chore(Job, kind="tests.chore", retry_delays=(1.0, 2.0, 3.0), stages={"first": 1, "second": 3}):
    """A job without a function: the tests move its row."""

    number: int = 0


def end_of(job_id: str, fence: int, state: State, outcome: Outcome | None = None, **more: Any) -> End:
    """Return the end of a claim; `outcome` defaults to the one that belongs to the state."""
    result: Any = outcome or ("handed_back" if state == "queued" else state)
    values: dict[str, Any] = {"kind": Chore.kind, "tries": 0, "finished_at": clock.now()} | more
    return End(id=job_id, fence=fence, state=state, outcome=result, **values)


class Ledger:
    """Inserts rows in any state and reads them back."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def put(self, **values: Any) -> str:
        """Insert a job in any state, without a move, and return its id."""
        return self.put_many(1, **values)[0]

    def put_many(self, count: int, **values: Any) -> list[str]:
        rows = [self._row(values) for _ in range(count)]
        self.db.transaction(lambda session: session.execute(sa.insert(JOB), rows))
        return [row["id"] for row in rows]

    def _row(self, values: dict[str, Any]) -> dict[str, Any]:
        now = clock.now()
        row: dict[str, Any] = {
            "id": uuid7(),
            "tenant": "default",
            "kind": Chore.kind,
            "payload_version": 1,
            "payload": {},
            "queue": "default",
            "state": "queued",
            "fence": 0,
            "tries": 0,
            "max_tries": 4,
            "crashes": 0,
            "open_children": 0,
            "due_at": now,
            "created_at": now,
        }
        return row | values

    def row(self, job_id: str) -> JobRow:
        row = self.db.read(lambda session: session.get(JobRow, job_id))
        assert row is not None
        return row

    def attempts(self, job_id: str) -> list[AttemptRow]:
        query = sa.select(AttemptRow).where(AttemptRow.job_id == job_id).order_by(AttemptRow.fence)
        return self.db.read(lambda session: list(session.scalars(query)))

    def worker(self, worker_id: str = WORKER) -> str:
        self.db.transaction(workers.register, worker_id, ["default"], 8, None)
        return worker_id


class Outage:
    """Make PostgreSQL refuse connections: `with outage():`"""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server = server
        self._name = name

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._server.execute(f"ALTER DATABASE {self._name} WITH ALLOW_CONNECTIONS false")
        self._server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'")
        try:
            yield
        finally:
            self._server.execute(f"ALTER DATABASE {self._name} WITH ALLOW_CONNECTIONS true")


@pytest.fixture
def outage(shared_postgres: PostgresServer, ledger_databases: Databases) -> Outage:
    return Outage(shared_postgres, ledger_databases.name)


class Databases:
    """One database of each kind for a test process, emptied before each use; a copy for each test takes a second."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self.name = f"ledger_{uuid.uuid4().hex[:12]}"
        self._opened: dict[str, Database] = {}

    def empty(self, kind: str) -> Database:
        if kind not in self._opened:
            self._opened[kind] = Database(self._url(kind))
        self._opened[kind].transaction(_delete_all)
        return self._opened[kind]

    def url(self, kind: str) -> str:
        """Return the URL of the emptied database, for settings."""
        return self.empty(kind).engine.url.render_as_string(hide_password=False)

    def _url(self, kind: str) -> str:
        if kind == "postgresql":
            server: PostgresServer = self._request.getfixturevalue("shared_postgres")
            return server.create_database(self.name, TEMPLATE)
        template: Path = self._request.getfixturevalue("sqlite_template")
        folder: Path = self._request.getfixturevalue("tmp_path_factory").mktemp("ledger")
        for suffix in ("", "-wal"):
            source = template.with_name(template.name + suffix)
            if source.exists():
                shutil.copyfile(source, folder / ("ledger.db" + suffix))
        return f"sqlite:///{folder / 'ledger.db'}"

    def close(self) -> None:
        for opened in self._opened.values():
            opened.close()


def _delete_all(session: Session) -> None:
    for table in (AttemptRow, DebouncedRow, LimitRow, JobRow, ThrottleRow, WorkerRow, ScheduleTickRow, ScheduleRow):
        session.execute(sa.delete(table))
    session.execute(sa.delete(InstallationFact))  # the next test has another store of originals
    session.execute(sa.update(Tenant).values(dict.fromkeys(QUOTAS)))
    limits.clear_cache()


@pytest.fixture(scope="session")
def ledger_databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    databases = Databases(request)
    yield databases
    databases.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_of(request: pytest.FixtureRequest, ledger_databases: Databases) -> Ledger:
    """An empty ledger on either database, with one worker registered."""
    ledger = Ledger(ledger_databases.empty(request.param))
    ledger.worker()
    return ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def spine_env(
    request: pytest.FixtureRequest, ledger_databases: Databases, redis_url: str, settings_env: SettingsEnv
) -> SettingsEnv:
    """Point this process's settings to an empty database of either kind and an empty Redis."""
    settings_env(database_url=ledger_databases.url(request.param), redis_url=redis_url, retry_delays="0,0,0")
    admit.clear_caches()
    parent_progress.clear()
    for queue in QUEUES:
        push.window.update(queue, 0, 0)  # cached from another test's Redis
    return settings_env


class WorkerHarness:
    """A worker process without its loop: the test takes runs, ends them and reads SQL and Redis."""

    def __init__(self, kinds: Sequence[str], threads: int = 4) -> None:
        self.process = WorkerProcess(kinds)
        self.process.start(list(QUEUES), threads)
        self.ledger = Ledger(database())
        self.redis: Any = redis.push().client
        database().transaction(workers.register, self.process.id, list(QUEUES), threads, None)

    def enqueue(self, *jobs: Job, **options: Any) -> list[str]:
        rows = database().transaction(enqueue_many, jobs, tenant="default", **options)
        return [row.id for row in rows]

    def take(self, count: int = 1) -> list[Run]:
        """Return the next runs that this process claims."""
        runs: list[Run] = []

        def taken() -> bool:
            runs.extend(self.process.fetcher.fetch())
            return len(runs) >= count

        wait_until(taken, what=f"{count} runs; there are {runs}")
        assert len(runs) == count
        return runs

    def push(self, ids: Sequence[str]) -> None:
        """Push ids with fence 0 into the window, in any state of their rows."""
        push.push([QueuedRef(job_id, 0, Chore.kind, "default", 0) for job_id in ids])

    def begin(self, run: Run) -> None:
        assert run.begin()
        run.progress = Progress(run.claim, self.process.progress_publisher)

    def end(self, run: Run, error: BaseException | None = None) -> None:
        self.process.end(run, judge(run.claim, error))

    def state(self, job_id: str) -> str:
        return self.ledger.row(job_id).state

    def until(self, job_id: str, *states: str) -> JobRow:
        wait_until(lambda: self.state(job_id) in states, what=f"{job_id} to be {states}, it is {self.state(job_id)}")
        return self.ledger.row(job_id)

    def window(self, queue: str = "default") -> list[str]:
        """Return the redis ids in a queue's window."""
        return [str(redis_id) for redis_id in self.redis.lrange(f"mr:q:{queue}", 0, -1)]

    def unacked(self) -> list[str]:
        """Return the redis ids that this process has taken and not acked."""
        keys = [f"mr:q:__acks__.{self.process.id}.{queue}" for queue in QUEUES]
        return [str(redis_id) for key in keys for redis_id in self.redis.smembers(key)]

    def until_acked(self) -> None:
        wait_until(lambda: not self.unacked(), what=f"acks of {self.unacked()}")

    def close(self) -> None:
        self.process.fetcher.stop()
        self.process.progress_publisher.stop()
        self.process.finisher.stop()
        self.process.loop.stop()


@pytest.fixture
def make_harness(spine_env: SettingsEnv) -> Iterator[Callable[..., WorkerHarness]]:
    """Return a factory of worker processes: `make_harness("tests.chore", threads=2)`."""
    made: list[WorkerHarness] = []

    def make(*kinds: str, threads: int = 4) -> WorkerHarness:
        made.append(WorkerHarness(kinds or (Chore.kind,), threads))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def harness(make_harness: Callable[..., WorkerHarness]) -> WorkerHarness:
    """Return a worker process for `tests.chore` with four threads."""
    return make_harness()
