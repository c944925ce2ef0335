"""Fixtures for every test: real services, fresh databases of either kind, the whole system as processes.

A test of SQL asks for `db`, one of routes or the broker for `app_env`, one of processes for `stack`. What each of
them hands out is fresh, and gone afterwards; servers are shared within one test process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.network import close_network
from tests.support.processes import running
from tests.support.services import PostgresServer, RedisServer
from tests.support.stack import API_SECRET, Stack

pytest_plugins = [
    "tests.support.changedetection",
    "tests.support.databases",
    "tests.support.qdrant",
    "tests.support.redis_kinds",
    "tests.support.tei",
]

close_network()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts a command in the background like this, and every process of ours would ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in [name for name in os.environ if name.startswith("MILLRACE_") and not name.startswith("MILLRACE_TEST_")]:
    del os.environ[_name]  # a desk's own settings must not steer the tests
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # our processes, dozens of them, would compile the program each time

_REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_REPORT] = report
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in tests/journeys as a journey."""
    for item in items:
        if "journeys" in item.path.parts:
            item.add_marker("journey")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests are marked `anyio` and run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk's .env and data folder lie in the working directory; a test has its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server a test process; ask for `redis_url`, which empties it first."""
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """An empty Redis for this test alone."""
    shared_redis.flush()
    return shared_redis.url


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis of this test alone, to be stopped, killed, frozen and flushed at will."""
    with running(RedisServer(tmp_path / "redis", appendonly=True)) as server:
        yield server


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL of this test alone, without our schema."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def stack(stack_env: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The system as processes, none started yet: `stack.start(workers=2)`. Their logs are printed on failure."""
    system = Stack(tmp_path / "logs", stack_env, API_SECRET, is_warm=True)
    try:
        yield system
    finally:
        system.end()
        report = request.node.stash.get(_REPORT, None)
        if report is None or report.failed:
            print(system.logs())
