"""The ground tests stand on: services are real, databases fresh, the network closed."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from app.core.db import Database
from app.core.settings import get_settings
from tests.support.command import Running, millrace
from tests.support.databases import make_stack_env
from tests.support.handed_on import HandedOn
from tests.support.network import NetworkClosed
from tests.support.services import PostgresServer, RedisServer
from tests.support.waiting import wait_until


def test_a_database_of_either_kind_has_the_schema_and_no_rows(db: Database) -> None:
    tables = set(sa.inspect(db.engine).get_table_names())
    assert {"job", "attempt", "worker"} <= tables
    assert db.read(lambda session: session.scalar(sa.text("SELECT count(*) FROM job"))) == 0


@pytest.mark.parametrize(
    ("left", "replaced"),
    [
        ("UPDATE tenant SET title = 'left'; DELETE FROM change_counter; SELECT nextval('document_id_seq')", False),
        ("CREATE TABLE left_behind (n integer)", True),
        ("ALTER TABLE gate ADD left_behind integer", True),
        ("DROP INDEX {index}", True),
    ],
)
def test_postgresql_is_reset_between_tests(
    handed_on: HandedOn, shared_postgres: PostgresServer, left: str, replaced: bool
) -> None:
    """Rows, counters and changes of the schema; who still holds a connection is cut off."""
    name = handed_on.fresh().rpartition("/")[2]
    with shared_postgres.connect(name) as connection:
        before = connection.execute(_EVERYTHING).fetchall()
        index = connection.execute("SELECT indexname FROM pg_indexes WHERE indexname LIKE 'ix_job_%'").fetchone()
        assert index is not None
        connection.execute(left.format(index=index[0]).encode())
        after = handed_on.fresh().rpartition("/")[2]
        assert (after != name) == replaced
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with shared_postgres.connect(after) as connection:
        assert connection.execute(_EVERYTHING).fetchall() == before
        assert connection.execute("SELECT nextval('document_id_seq')").fetchone() == (1,)


# The schema, and the rows that the migrations have left.
_EVERYTHING = """
    SELECT table_name || '.' || column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'tenant', tenant::text FROM tenant
    UNION ALL SELECT 'change_counter', change_counter::text FROM change_counter
    ORDER BY 1, 2
"""


def test_forked_command_is_a_separate_process(sqlite_url: str, tmp_path: Path) -> None:
    """Its environment, folder, streams and exit code are those that a start of Python would have given it."""
    env = {**os.environ, "MILLRACE_DATABASE_URL": sqlite_url, "MILLRACE_DATA_DIR": "here"}
    words = ("config", "show", "--json")
    (tmp_path / ".env").write_text("MILLRACE_LOG_LEVEL=error\n")
    forked = millrace(*words, env=env, cwd=tmp_path)
    started = millrace(*words, env=env | {"PYTHONHASHSEED": "1"}, cwd=tmp_path)
    assert forked == started
    rows = {row["name"]: (row["value"], row["source"]) for row in forked.json}
    assert rows["MILLRACE_DATA_DIR"][0] == "here" and rows["MILLRACE_LOG_LEVEL"][0] == "error"
    forked, started = (millrace("jobs", "show", env=env | more) for more in ({}, {"PYTHONHASHSEED": "1"}))
    assert forked == started and forked.code == 2


def test_forked_command_can_be_killed(redis_url: str, sqlite_url: str, tmp_path: Path) -> None:
    running = Running("relay", env=make_stack_env(sqlite_url, redis_url, tmp_path))
    assert running.poll() is None
    assert running.process.pid != os.getpid() and os.getpgid(running.process.pid) == running.process.pid
    assert running.kill() == -signal.SIGKILL
    assert running.poll() == -signal.SIGKILL


def test_redis_is_empty(redis_url: str, shared_redis: RedisServer) -> None:
    with shared_redis.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_again(redis_url: str, shared_redis: RedisServer) -> None:
    with shared_redis.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_separate_redis_restarts_on_its_port(redis_server: RedisServer) -> None:
    redis_server.kill()
    redis_server.start()
    assert redis_server.answers()


def test_settings_are_isolated_between_tests(settings_env) -> None:  # type: ignore[no-untyped-def]
    settings_env(worker_threads=3)
    assert get_settings().worker_threads == 3


def test_connections_to_other_machines_are_refused() -> None:
    with socket.socket() as outside, pytest.raises(NetworkClosed):
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("example.com", 80)


def test_wait_timeout_names_the_condition() -> None:
    with pytest.raises(AssertionError, match="the moon to fall"):
        wait_until(lambda: False, timeout_s=0.05, what="the moon to fall")
