"""Tests of your own kinds: an empty ledger, and jobs that run in the test. Needs neither Redis nor a worker.

    from app.jobs import testing as jobs

    @pytest.fixture(autouse=True)
    def ledger():
        with jobs.ledger():
            yield

    def test_a_receipt_is_sent():
        row = jobs.run_inline(SendReceipt(order_id=7))
        assert row.state == "succeeded"

    def test_what_a_payment_starts():
        pay(order)                                  # enqueues
        assert [row.kind for row in jobs.drain()] == ["shop.receipt"]

Rows, transactions, holds, errors and retries are real. A plain function runs in this process instead of a sandbox,
and time limits do not apply.
"""

from __future__ import annotations

import asyncio
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Unpack

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, migrate, redis
from app.core.db import Database, close_database, database
from app.core.ids import uuid7
from app.core.settings import overridden
from app.core.telemetry import trace
from app.jobs import functions
from app.jobs.admission import push
from app.jobs.definition import Job
from app.jobs.enqueued import EnqueuedJob
from app.jobs.ledger import child_moves, ends, timers, workers
from app.jobs.ledger import claims as rows
from app.jobs.ledger.claims import Claim
from app.jobs.ledger.enqueue import Options, enqueue
from app.jobs.models import JobRow
from app.jobs.queues import QUEUES
from app.jobs.results import check_result
from app.jobs.states import ENDED
from app.jobs.worker.outcome import end_of, judge
from app.jobs.worker.progress import Progress, ProgressPublisher

# Jobs that start each other without end are stopped after this many.
MAX_RUNS = 1000


@contextmanager
def ledger(database_url: str | None = None) -> Iterator[Database]:
    """Open an empty ledger for this process: SQLite in a temporary folder, or your database (it is migrated)."""
    with tempfile.TemporaryDirectory(prefix="millrace-test-") as folder:
        if database_url is None:
            path = Path(folder) / "millrace.db"
            shutil.copyfile(_template(), path)
            database_url = f"sqlite:///{path}"
        shift = clock.shifted()
        _clear_caches()
        try:
            with overridden(database_url=database_url, data_dir=folder, redis_url="unix:///nonexistent/redis.sock"):
                redis.push().give_up()
                migrate.upgrade(database())
                yield database()
        finally:
            clock.shift(shift)
            _clear_caches()


@lru_cache(maxsize=1)
def _template() -> Path:
    """Return a migrated database file, made once a process: copies are cheap."""
    folder = tempfile.TemporaryDirectory(prefix="millrace-test-")
    _folders.append(folder)
    path = Path(folder.name) / "template.db"
    template = Database(f"sqlite:///{path}")
    migrate.upgrade(template)
    with template.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.commit()
    template.close()
    return path


# Removed with the process.
_folders: list[tempfile.TemporaryDirectory[str]] = []


def _clear_caches() -> None:
    close_database()
    redis.push.cache_clear()
    push.window.clear()


def run_inline(job: Job, *, tenant: str = "default", **options: Unpack[Options]) -> JobRow:
    """Enqueue the job and run it now, whatever its due_at; return its row after the run.

    Raises the error of the job, after its row records it.
    """
    row = database().transaction(enqueue, job, tenant=tenant, **options)
    with _at(row):
        ended, error = _run(row.id)
    if error is not None and ended.state != "waiting":
        raise error
    return ended


def drain(*, most: int = MAX_RUNS, later: bool = False) -> list[JobRow]:
    """Run all waiting jobs and the jobs they start until none are left; return the rows in the order of their runs.

    Errors of jobs are in their rows. `later`: jobs due in the future, such as retries, run as well; the clock moves on
    for them. Raises RuntimeError after `most` runs.
    """
    done: list[JobRow] = []
    shift = clock.shifted()
    try:
        while True:
            job_id = database().transaction(_next, later)
            if job_id is None:
                return done
            if len(done) == most:
                raise RuntimeError(f"more than {most} runs: do these jobs start each other for ever?")
            done.append(_run(job_id)[0])
    finally:
        clock.shift(shift)


@contextmanager
def _at(row: EnqueuedJob) -> Iterator[None]:
    """Set the clock to the due time of the job."""
    shift = clock.shifted()
    if row.due_at > clock.now():
        clock.shift(shift + (row.due_at - clock.now()))
    try:
        yield
    finally:
        clock.shift(shift)


def _next(session: Session, later: bool) -> str | None:
    """Return the next job that a worker would take; with `later` the clock moves on to the first due job."""
    while True:
        timers.make_due(session, MAX_RUNS)
        timers.expire(session, MAX_RUNS)
        child_moves.cancel_children(session)
        child_moves.settle(session)
        queued = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.due_at <= clock.now())
        job_id = session.scalar(queued.order_by(JobRow.priority.desc(), JobRow.id).limit(1))
        if job_id is not None or not later:
            return job_id
        waiting = sa.select(sa.func.min(JobRow.due_at)).where(JobRow.state.in_(("scheduled", "retrying", "queued")))
        first = session.scalar(waiting)
        if first is None:
            return None
        clock.shift(clock.shifted() + max(first - clock.now(), timedelta(0)))


def _run(job_id: str) -> tuple[JobRow, BaseException | None]:
    """Run a queued job once, as a worker would."""
    claim = database().transaction(_claim, job_id)
    progress = Progress(claim, ProgressPublisher(lambda claim, snapshot: None))
    started_at, result, error = clock.now(), None, None
    trace.enter(claim.traceparent)
    try:
        result = check_result(_call(claim, progress))
    except Exception as raised:  # noqa: BLE001  the outcome table judges it, as in a worker
        error = raised
    finally:
        trace.enter(None)
    snapshot, _ = progress.close(succeeded=error is None)
    verdict = judge(claim, error)
    if verdict.state is not None:
        end = end_of(claim, verdict, started_at=started_at, result=result, progress=snapshot)
        database().transaction(ends.finish, [end])
    row = database().read(lambda session: session.get(JobRow, job_id))
    assert row is not None
    return row, None if row.state == "succeeded" else error


def _claim(session: Session, job_id: str) -> Claim:
    timers.make_due(session, MAX_RUNS)
    worker_id = uuid7()
    workers.register(session, worker_id, list(QUEUES), 1, None)
    claims = rows.claim(session, [job_id], worker_id, ignore_limits=True)
    if not claims:
        row = session.get(JobRow, job_id)
        state = "gone" if row is None else f"{row.state}{' already' if row.state in ENDED else ''}"
        raise RuntimeError(f"job {job_id} cannot be run: it is {state}")
    return claims[0]


def _call(claim: Claim, progress: Progress) -> Any:
    declared = functions.function_of(claim.kind)
    if declared is None:
        raise LookupError(f"no function is registered for {claim.kind}: import the module with its @job_actor")
    job = declared.definition.load(claim.payload, claim.payload_version)
    if inspect.iscoroutinefunction(declared.function):
        return _awaited(lambda: asyncio.run(declared.function(job, progress)))
    return declared.function(job, progress)


def _awaited(run: Callable[[], Any]) -> Any:
    """Run the coroutine; in another thread if the test runs its own loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(run).result()
