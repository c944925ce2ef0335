"""The schema: models and migrations say the same, on both databases, up, down and up again."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.core import migrate, schema
from app.core.db import Base, Database
from app.jobs.states import MOVES, STATES
from tests.support.services import PostgresServer
from tests.support.stack import REPOSITORY

SPINE = "app.migrations.versions.0001_the_spine_job_attempt_worker"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    if request.param == "sqlite":
        url, server = f"sqlite:///{tmp_path / 'empty.db'}", None
    else:
        server = request.getfixturevalue("shared_postgres")
        assert isinstance(server, PostgresServer)
        url = server.create_database(f"m_{uuid.uuid4().hex[:12]}")
    database = Database(url)
    yield database
    database.close()
    if server is not None:
        server.drop_database(url.rpartition("/")[2])


def _tables(database: Database) -> set[str]:
    return set(sa.inspect(database.engine).get_table_names()) - {"alembic_version"}


def _to(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.SCRIPTS))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def test_models_equal_the_migrations_head(empty_db: Database) -> None:
    for path in sorted((REPOSITORY / "app").glob("*/models.py")):
        importlib.import_module(f"app.{path.parent.name}.models")
    migrate.upgrade(empty_db)
    with empty_db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrade_downgrade_and_upgrade_again(empty_db: Database) -> None:
    assert schema.current(empty_db) is None
    migrate.upgrade(empty_db)
    made = _tables(empty_db)
    assert {"job", "attempt", "worker"} <= made
    _to(empty_db, "base")
    assert _tables(empty_db) == set()
    migrate.upgrade(empty_db)
    assert _tables(empty_db) == made
    assert schema.current(empty_db) == schema.head()


def test_a_second_upgrade_changes_nothing(empty_db: Database) -> None:
    migrate.upgrade(empty_db)
    assert migrate.upgrade(empty_db) == schema.current(empty_db) == schema.head()


def test_the_head_that_is_read_from_file_names_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.head()]


def test_the_migration_knows_the_moves_and_states_of_the_program() -> None:
    spine = importlib.import_module(SPINE)
    assert {tuple(move.split(">")) for move in spine.MOVES} == MOVES
    assert len(spine.MOVES) == len(MOVES)
    assert tuple(spine.STATES) == STATES
