"""The ground tests stand on: services are real, databases fresh, the network closed."""

from __future__ import annotations

import socket

import pytest
import sqlalchemy as sa

from app.core.db import Database
from app.core.settings import get_settings
from tests.support.network import NetworkClosed
from tests.support.services import RedisServer
from tests.support.waiting import wait_until


def test_a_database_of_either_kind_has_the_schema_and_no_rows(db: Database) -> None:
    tables = set(sa.inspect(db.engine).get_table_names())
    assert {"job", "attempt", "worker"} <= tables
    assert db.read(lambda session: session.scalar(sa.text("SELECT count(*) FROM job"))) == 0


def test_redis_is_empty(redis_url: str, shared_redis: RedisServer) -> None:
    with shared_redis.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_again(redis_url: str, shared_redis: RedisServer) -> None:
    with shared_redis.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_a_redis_of_ones_own_comes_back_on_its_port(redis_server: RedisServer) -> None:
    redis_server.kill()
    redis_server.start()
    assert redis_server.answers()


def test_settings_are_those_of_the_test(settings_env) -> None:  # type: ignore[no-untyped-def]
    settings_env(worker_threads=3)
    assert get_settings().worker_threads == 3


def test_other_machines_are_out_of_reach() -> None:
    with socket.socket() as outside, pytest.raises(NetworkClosed):
        outside.connect(("192.0.2.1", 80))
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("example.com", 80)


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match="the moon to fall"):
        wait_until(lambda: False, timeout_s=0.05, what="the moon to fall")
