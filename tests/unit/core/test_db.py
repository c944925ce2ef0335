"""Transactions: whole or not at all, tried again where that helps, and an error in our words where it does not."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.db import MAX_IDLE_WAL_BYTES, Database, UtcDateTime, after_commit, in_transaction, read
from app.core.errors import ConfigError, Unavailable
from tests.support.services import PostgresServer
from tests.support.waiting import wait_until

THINGS = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", UtcDateTime()),
    sa.Column("text", sa.Text),
)


def put(session: Session, number: int, text: str = "") -> None:
    session.execute(sa.insert(THINGS).values(id=number, text=text))


def put_all(session: Session, *numbers: int) -> None:
    for number in numbers:
        put(session, number)


def count(session: Session) -> int:
    return int(session.scalar(sa.select(sa.func.count()).select_from(THINGS)) or 0)


@pytest.fixture
def things(db: Database) -> Database:
    THINGS.create(db.engine)
    return db


def test_transaction_is_atomic(things: Database) -> None:
    def torn(session: Session) -> None:
        put(session, 1)
        raise LookupError

    with pytest.raises(LookupError):
        things.transaction(torn)
    with pytest.raises(IntegrityError):
        things.transaction(put_all, 2, 2)
    assert things.read(count) == 0


def test_read_is_one_snapshot(things: Database) -> None:
    """A commit between two statements of a read is seen by the next read only."""

    def twice(session: Session) -> list[int]:
        first = count(session)
        things.transaction(put, 1)
        return [first, count(session)]

    assert things.read(twice) == [0, 0]
    assert things.read(count) == 1


def test_after_commit_runs_once_and_only_after_a_commit(things: Database) -> None:
    done: list[int] = []

    def write(session: Session, number: int, *, fail: bool = False) -> None:
        put(session, number)
        for _ in range(2):
            after_commit(session, "tell", lambda: lambda: done.append(things.read(count)))
        if fail:
            raise LookupError

    with pytest.raises(LookupError):
        things.transaction(write, 1, fail=True)
    assert done == []
    things.transaction(write, 1)
    assert done == [1]


def test_times_are_read_as_aware_utc(things: Database) -> None:
    at = datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    things.transaction(lambda session: session.execute(sa.insert(THINGS).values(id=1, at=at)))
    (stored_at,) = things.read(lambda session: session.scalars(sa.select(THINGS.c.at)).all())
    assert stored_at == at
    assert stored_at is not None
    assert stored_at.tzinfo is UTC


def test_deadlocks_are_retried(things: Database) -> None:
    """Two transactions that take the same rows in opposite order both come through."""
    things.transaction(put_all, 1, 2)
    meet, runs = threading.Barrier(2), []

    def cross(session: Session, first: int, second: int) -> None:
        runs.append(first)
        session.execute(sa.update(THINGS).where(THINGS.c.id == first).values(text="x"))
        if things.dialect == "postgresql" and len(runs) <= 2:
            meet.wait(10)
        session.execute(sa.update(THINGS).where(THINGS.c.id == second).values(text="x"))

    with ThreadPoolExecutor(2) as pool:
        for done in (pool.submit(things.transaction, cross, 1, 2), pool.submit(things.transaction, cross, 2, 1)):
            done.result(20)
    assert len(runs) == (3 if things.dialect == "postgresql" else 2)


@pytest.mark.anyio
async def test_a_cancelled_caller_waits_for_its_transaction(things: Database) -> None:
    """So nothing commits behind the back of one who believes it did not."""
    inside, go_on = threading.Event(), threading.Event()

    def slow(session: Session) -> None:
        put(session, 1)
        inside.set()
        assert go_on.wait(10)

    task = asyncio.create_task(in_transaction(slow))
    assert await asyncio.to_thread(inside.wait, 10)
    task.cancel()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await read(count) == 1


def test_a_short_lock_is_waited_for(sqlite_db: Database) -> None:
    THINGS.create(sqlite_db.engine)
    other = sqlite3.connect(str(sqlite_db.engine.url.database), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(sqlite_db.transaction, put, 1)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 0.3, what="a while to pass")
        assert not writing.done()
        assert sqlite_db.read(count) == 0
        other.execute("COMMIT")
        writing.result(5)
    other.close()
    assert sqlite_db.read(count) == 1


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond the size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_log_shrinks_after_a_long_read(sqlite_db: Database) -> None:
    log = Path(f"{sqlite_db.engine.url.database}-wal")
    THINGS.create(sqlite_db.engine)
    with sqlite_db.engine.connect() as reader:
        reader.execute(sa.select(THINGS.c.id)).all()
        for number in range(40):
            sqlite_db.transaction(put, number, "x" * 1024 * 1024)
        assert log.stat().st_size > 3 * MAX_IDLE_WAL_BYTES
    for number in range(40, 43):
        sqlite_db.transaction(put, number)
    assert log.stat().st_size <= MAX_IDLE_WAL_BYTES


def test_a_full_disk_is_unavailable_and_loses_nothing(sqlite_db: Database) -> None:
    THINGS.create(sqlite_db.engine)
    sqlite_db.transaction(put, 1, "before")
    wal = Path(f"{sqlite_db.engine.url.database}-wal")
    with full_disk(wal.stat().st_size + 4096), pytest.raises(Unavailable) as refusal:
        sqlite_db.transaction(put, 2, "x" * 500_000)
    assert refusal.value.code == "database_unavailable"
    assert sqlite_db.read(count) == 1
    sqlite_db.transaction(put, 2, "x" * 500_000)
    assert sqlite_db.read(count) == 2


def test_a_database_of_all_its_pages_is_unavailable_too(sqlite_db: Database) -> None:
    THINGS.create(sqlite_db.engine)

    @sa.event.listens_for(sqlite_db.engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1").close()

    with pytest.raises(Unavailable, match="full"):
        sqlite_db.transaction(put, 1, "x" * 500_000)
    assert sqlite_db.read(count) == 0


def test_a_read_only_file_can_be_read_and_is_unavailable_for_writing(sqlite_db: Database) -> None:
    THINGS.create(sqlite_db.engine)
    sqlite_db.transaction(put, 1)
    reader = Database(f"sqlite:///file:{sqlite_db.engine.url.database}?mode=ro&uri=true")
    with pytest.raises(Unavailable, match="readonly"):
        reader.transaction(put, 2)
    assert reader.read(count) == 1
    reader.close()


def test_a_server_that_only_reads_is_unavailable_for_writing(
    postgres_url: str, shared_postgres: PostgresServer
) -> None:
    """A standby that has not been promoted yet, for example."""
    shared_postgres.execute(f"ALTER DATABASE {postgres_url.rpartition('/')[2]} SET default_transaction_read_only = on")
    standby = Database(postgres_url)
    with pytest.raises(Unavailable) as refusal:
        standby.transaction(lambda session: session.execute(sa.text("DELETE FROM attempt")))
    assert refusal.value.code == "database_unavailable"
    standby.ping()
    standby.close()


def test_connections_that_were_cut_are_replaced(postgres_url: str, shared_postgres: PostgresServer) -> None:
    cut = Database(postgres_url)
    THINGS.create(cut.engine)
    name = postgres_url.rpartition("/")[2]
    for number in range(3):
        shared_postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        cut.transaction(put, number)
    assert cut.read(count) == 3
    cut.close()


def test_connection_lost_after_its_last_answer_changes_no_result(
    postgres_url: str, shared_postgres: PostgresServer
) -> None:
    """A finished read keeps its result, and any other error is raised as it is."""
    database = Database(postgres_url)
    name = postgres_url.rpartition("/")[2]

    def cut_off(session: Session) -> int:
        value = int(session.scalar(sa.text("SELECT 7")) or 0)
        shared_postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        return value

    def cut_off_and_fail(session: Session) -> None:
        cut_off(session)
        raise LookupError("of its own")

    assert database.read(cut_off) == 7
    with pytest.raises(LookupError):
        database.transaction(cut_off_and_fail)
    with pytest.raises(Unavailable):
        database.transaction(cut_off)
    assert database.read(lambda session: session.scalar(sa.text("SELECT 1"))) == 1
    database.close()


def test_wrong_credentials_are_a_config_error_and_no_answer_is_unavailable(shared_postgres: PostgresServer) -> None:
    good = sa.make_url(shared_postgres.url_of("postgres"))
    urls = [
        (good.set(password="wrong"), ConfigError),
        (good.set(username="nobody_here"), ConfigError),
        (good.set(database="no_such_database"), ConfigError),
        (good.set(port=1), Unavailable),
    ]
    for url, error in urls:
        database = Database(url.render_as_string(hide_password=False))
        with pytest.raises(error) as refusal:
            database.ping()
        assert "wrong" not in str(refusal.value)
        assert "\n" not in str(refusal.value)
        database.close()


def test_too_many_at_once_is_unavailable_not_a_bug(sqlite_url: str) -> None:
    """A caller that gets no connection in time receives Unavailable."""
    database = Database(sqlite_url, pool_size=2)
    database.engine.pool._timeout = 0.1  # type: ignore[attr-defined]
    held = [database.engine.connect() for _ in range(4)]
    with pytest.raises(Unavailable):
        database.ping()
    for connection in held:
        connection.close()
    database.ping()
    database.close()


def test_writers_of_one_process_take_turns_and_a_read_waits_for_none(sqlite_db: Database) -> None:
    """A waiting writer gives up as it does for the lock of another process, and the turn is free afterwards."""
    THINGS.create(sqlite_db.engine)
    there, go_on = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        put(session, 1)
        there.set()
        go_on.wait(30)

    with ThreadPoolExecutor(4) as pool:
        held = pool.submit(sqlite_db.transaction, hold)
        try:
            assert there.wait(10)
            waiting = [pool.submit(sqlite_db.transaction, put, number) for number in (2, 3)]
            assert sqlite_db.read(count) == 0
            for late in waiting:
                with pytest.raises(Unavailable, match="locked"):
                    late.result(20)
        finally:
            go_on.set()
        held.result(10)
        assert [pool.submit(sqlite_db.transaction, put, number).result(10) for number in (4, 5)] == [None, None]
    assert sqlite_db.read(count) == 3
