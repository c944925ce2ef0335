"""Fresh databases with the schema, of both kinds: copies of a template that was migrated once a test process."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core import db as core_db
from app.core import redis as core_redis
from app.core.db import Database
from app.core.migrate import upgrade
from app.core.settings import get_settings
from tests.support.handed_on import HandedOn, prepare
from tests.support.services import PostgresServer, RedisServer
from tests.support.stack import API_SECRET

TEMPLATE = "millrace_template"
PREPARED = "millrace_prepared"

SettingsEnv = Callable[..., None]


def make_schema(url: str) -> None:
    database = Database(url)
    upgrade(database)
    database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    make_schema(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """One cluster a test process, with a migrated template; ask for `postgres_url`."""
    server = PostgresServer()
    try:
        server.start()
        make_schema(server.create_database(TEMPLATE))
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def handed_on(shared_postgres: PostgresServer) -> Iterator[HandedOn]:
    """The database behind `postgres_url`, from test to test."""
    shared_postgres.create_database(PREPARED, TEMPLATE)
    prepare(shared_postgres, PREPARED)
    database = HandedOn(shared_postgres, PREPARED)
    yield database
    database.close()


@pytest.fixture
def copied_postgres_url(shared_postgres: PostgresServer) -> Iterator[str]:
    """A copy of this test's own, with nothing in it but the schema: for what looks at a database as a whole."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    yield shared_postgres.create_database(name, TEMPLATE)
    shared_postgres.drop_database(name)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A fresh SQLite database with the schema."""
    path = tmp_path / "millrace.db"
    for suffix in ("", "-wal"):
        source = sqlite_template.with_name(sqlite_template.name + suffix)
        if source.exists():
            shutil.copyfile(source, path.with_name(path.name + suffix))
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(handed_on: HandedOn) -> str:
    """A PostgreSQL database as the migrations leave it, for this test alone."""
    return handed_on.fresh()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database with the schema: the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


def _forget() -> None:
    """Clear the caches of settings that a test has changed."""
    core_db.close_database()
    core_redis.push.cache_clear()
    get_settings.cache_clear()


@pytest.fixture
def settings_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SettingsEnv]:
    """Sets MILLRACE_* for this test: `settings_env(worker_threads=4)`. The process reads its settings again."""

    def put(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"MILLRACE_{name.upper()}", str(value))
        _forget()

    put(data_dir=tmp_path / "data", api_secret=API_SECRET, rate_limits="off")
    yield put
    _forget()


@pytest.fixture
def db(database_url: str, settings_env: SettingsEnv) -> Database:
    """The process's own `database()`, on a fresh SQLite and then on a fresh PostgreSQL."""
    settings_env(database_url=database_url)
    return core_db.database()


@pytest.fixture
def sqlite_db(sqlite_url: str, settings_env: SettingsEnv) -> Database:
    """The same on SQLite alone, for what does not depend on the database."""
    settings_env(database_url=sqlite_url)
    return core_db.database()


@pytest.fixture
def app_env(database_url: str, redis_url: str, settings_env: SettingsEnv) -> SettingsEnv:
    """Database and Redis of this test in the environment of this process."""
    settings_env(database_url=database_url, redis_url=redis_url)
    return settings_env


@pytest.fixture
def stack_env(database_url: str, redis_server: RedisServer, tmp_path: Path) -> dict[str, str]:
    """The environment that every process of a `stack` starts with; a test may add to it before it starts one."""
    return make_stack_env(database_url, redis_server.url, tmp_path)


def make_stack_env(database_url: str, redis_url: str, folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return {
        **inherited,
        "PYTHONUNBUFFERED": "1",
        "MILLRACE_DATABASE_URL": database_url,
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_DATA_DIR": str(folder / "data"),
        "MILLRACE_API_SECRET": API_SECRET,
        "MILLRACE_RATE_LIMITS": "off",
        "MILLRACE_LOG_FORMAT": "console",
        "MILLRACE_WORKER_THREADS": "8",
        "MILLRACE_GRACE_S": "5",
        "MILLRACE_RETRY_DELAYS": "0.2,0.2,0.2",
        "MILLRACE_FETCH_PRIVATE": "true",
        "MILLRACE_FETCH_HOST_DELAY_S": "0",
        "MILLRACE_CHROMIUM_SANDBOX": "false",
    }
