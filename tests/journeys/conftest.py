"""Fixtures of the journeys: the stack with the tests' kinds, and a view of the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import database
from app.core.http import HTTPError, client
from app.jobs.definition import Job
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import AttemptRow, JobRow
from app.jobs.states import ENDED
from tests.support.chaos_kinds import EFFECT
from tests.support.databases import SettingsEnv
from tests.support.processes import Process
from tests.support.stack import Stack
from tests.support.waiting import wait_until

MODULES = "tests.support.kinds,tests.support.chaos_kinds"
TENANT = "default"


class Ledger:
    """The tests' access to jobs without the api: enqueues jobs and reads their rows."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def enqueue(self, job: Job, **options: Any) -> str:
        return database().transaction(lambda session: enqueue(session, job, tenant=TENANT, **options).id)

    def row(self, job_id: str) -> JobRow:
        row = database().read(lambda session: session.get(JobRow, job_id))
        assert row is not None
        return row

    def state(self, job_id: str) -> str:
        return self.row(job_id).state

    def outcomes(self, job_id: str) -> list[str]:
        """Outcomes of the job's runs, in order."""
        query = sa.select(AttemptRow.outcome).where(AttemptRow.job_id == job_id).order_by(AttemptRow.fence)
        return database().read(lambda session: list(session.scalars(query)))

    def wait(self, job_id: str, *states: str, timeout_s: float = 30.0) -> JobRow:
        expected = states or ENDED
        what = f"job {job_id} to be {' or '.join(expected)}"
        wait_until(lambda: self.state(job_id) in expected, timeout_s=timeout_s, what=what)
        return self.row(job_id)

    def wait_all(self, job_ids: list[str], timeout_s: float = 40.0) -> list[JobRow]:
        """The rows, once every one of them has ended."""
        query = sa.select(JobRow).where(JobRow.id.in_(job_ids))

        def ended() -> list[JobRow]:
            rows = database().read(lambda session: list(session.scalars(query)))
            return rows if len(rows) == len(job_ids) and all(row.state in ENDED for row in rows) else []

        return wait_until(ended, timeout_s=timeout_s, what=f"{len(job_ids)} jobs to end")

    def effects(self, job_id: str) -> Sequence[tuple[int, int, int]]:
        """(effect, fence of its writer, fence of the job then), in the order of their writing."""
        columns = (EFFECT.c.effect, EFFECT.c.fence, EFFECT.c.job_fence)
        query = sa.select(*columns).where(EFFECT.c.job_id == job_id).order_by(EFFECT.c.id)

        def read(session: Session) -> Sequence[tuple[int, int, int]]:
            return session.execute(query).all()

        return database().read(read)

    def worker_id(self, worker: Process) -> str:
        """Id that the worker reports; empty while it does not answer."""
        try:
            with client(2) as http:
                answer = http.get(f"http://127.0.0.1:{self.stack.health_port(worker)}/health")
        except HTTPError:
            return ""
        return str(answer.json()["worker_id"])

    def worker_of(self, job_id: str) -> Process:
        """The worker program that runs the job now."""
        worker_id = self.wait(job_id, "running").worker_id
        return next(w for w in self.stack.workers if w.alive and self.worker_id(w) == worker_id)


@pytest.fixture
def ledger(stack: Stack, settings_env: SettingsEnv) -> Iterator[Ledger]:
    """The stack knows the tests' kinds, and this process may enqueue them."""
    stack.env["MILLRACE_MODULES"] = MODULES
    settings_env(
        database_url=stack.env["MILLRACE_DATABASE_URL"], redis_url=stack.env["MILLRACE_REDIS_URL"], log_level="error"
    )
    EFFECT.metadata.create_all(database().engine)
    yield Ledger(stack)
