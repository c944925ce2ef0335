"""PostgreSQL behind PgBouncer in transaction mode: no part of the system depends on session state."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.core import migrate
from app.core.db import Database
from tests.journeys.conftest import Ledger
from tests.support.databases import SettingsEnv
from tests.support.kinds import Sleep
from tests.support.pgbouncer import SERVERS, PgBouncer
from tests.support.services import PostgresServer, RedisServer
from tests.support.stack import API_SECRET, Stack

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]


@pytest.fixture
def bouncer(shared_postgres: PostgresServer) -> Iterator[PgBouncer]:
    between = PgBouncer(shared_postgres)
    try:
        between.start("postgres")
        yield between
    finally:
        between.stop()


@pytest.fixture
def database_url(bouncer: PgBouncer, postgres_url: str, settings_env: SettingsEnv) -> str:
    """This test's database, by way of the bouncer: also for the test itself and every process it starts."""
    url = bouncer.url_of(postgres_url.rpartition("/")[2])
    settings_env(database_url=url, database_prepared="false")
    return url


@pytest.fixture
def stack(stack_env: dict[str, str], tmp_path: Path) -> Iterator[Stack]:
    system = Stack(tmp_path / "logs", stack_env | {"MILLRACE_DATABASE_PREPARED": "false"}, API_SECRET, is_warm=True)
    try:
        yield system
    finally:
        system.end()


def test_the_main_job_and_a_killed_worker(
    stack: Stack, ledger: Ledger, redis_server: RedisServer, bouncer: PgBouncer
) -> None:
    """More processes and threads than there are servers; a worker dies; all is done."""
    stack.start(workers=2)
    jobs = [ledger.enqueue(Sleep(seconds=0.2, steps=2)) for _ in range(40)]
    page = stack.post("/api/documents", {"markdown": "# Sluices\n\nA sluice stops the water."}).json()["id"]
    ledger.wait(jobs[0], "running", "succeeded")
    stack.workers[0].kill()
    rows = ledger.wait_all([*jobs, page], timeout_s=60)
    assert {row.state for row in rows} == {"succeeded"}
    assert stack.post("/api/search", {"query": "sluice"}).json()["total"] == 1


def test_many_that_migrate_at_once_leave_no_lock(bouncer: PgBouncer, shared_postgres: PostgresServer) -> None:
    name = f"m_{uuid.uuid4().hex[:12]}"
    shared_postgres.create_database(name)
    databases = [Database(bouncer.url_of(name), prepared=False) for _ in range(SERVERS // 2)]
    try:
        with ThreadPoolExecutor(len(databases)) as pool:
            assert len(set(pool.map(migrate.upgrade, databases))) == 1
        with shared_postgres.connect() as connection:
            held = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        assert held == (0,)
        with databases[0].engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM job")) == 0
    finally:
        for database in databases:
            database.close()
        shared_postgres.drop_database(name)
