"""The schema: models match the migrations on both databases, up, down and up again."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """Return a database without tables."""
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


def _upgrade_to(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.SCRIPTS))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def _to(database: Database, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.SCRIPTS))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def test_models_match_the_head_of_the_migrations(empty_db: Database) -> None:
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


def test_second_upgrade_changes_nothing(empty_db: Database) -> None:
    migrate.upgrade(empty_db)
    assert migrate.upgrade(empty_db) == schema.current(empty_db) == schema.head()


def test_head_read_from_file_names_matches_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.SCRIPTS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.head()]


def test_first_migration_has_the_moves_and_states_of_the_program() -> None:
    spine = importlib.import_module(SPINE)
    assert {tuple(move.split(">")) for move in spine.MOVES} == MOVES
    assert len(spine.MOVES) == len(MOVES)
    assert tuple(spine.STATES) == STATES


# The schema of the last release; later migrations must not break the programs of that release. Before the first
# release: the first schema with this promise.
RELEASED = "0008"


def _shape(database: Database) -> dict[str, dict[str, tuple[str, bool, bool]]]:
    """Return for each column: its type, if it is nullable, if an INSERT may omit it."""
    inspector = sa.inspect(database.engine)
    shape = {}
    for table in inspector.get_table_names():
        keys = set(inspector.get_pk_constraint(table)["constrained_columns"])
        shape[table] = {
            column["name"]: (
                str(column["type"]),
                bool(column["nullable"]),
                bool(column["nullable"]) or column["default"] is not None or column["name"] in keys,
            )
            for column in inspector.get_columns(table)
        }
    return shape


def _breaking_changes(before: Any, after: Any) -> list[str]:
    """Return the changes that break a program written for `before`."""
    changes = []
    for table, columns in before.items():
        now = after.get(table, {})
        for name, (kind, nullable, _) in columns.items():
            if name not in now:
                changes.append(f"{table}.{name} is removed")
            elif now[name][0] != kind or (nullable and not now[name][1]):
                changes.append(f"{table}.{name} is {now[name]}, not {kind}")
        changes += [f"{table}.{name} is new and required" for name in now.keys() - columns.keys() if not now[name][2]]
    return changes


def test_migrations_after_the_last_release_break_no_program_of_it(empty_db: Database) -> None:
    """Migrations only add columns and tables, and an INSERT may omit them."""
    _upgrade_to(empty_db, RELEASED)
    before = _shape(empty_db)
    migrate.upgrade(empty_db)
    assert _breaking_changes(before, _shape(empty_db)) == []


def test_breaking_changes_include_removed_required_and_narrowed_columns() -> None:
    before = {"job": {"id": ("TEXT", False, True), "note": ("TEXT", True, True)}}
    assert _breaking_changes(before, {"job": {"id": ("TEXT", False, True)}}) == ["job.note is removed"]
    assert _breaking_changes(before, {}) == ["job.id is removed", "job.note is removed"]
    demanding = {"job": before["job"] | {"size": ("INTEGER", False, False)}}
    assert _breaking_changes(before, demanding) == ["job.size is new and required"]
    narrower = {"job": before["job"] | {"note": ("TEXT", False, True)}}
    assert len(_breaking_changes(before, narrower)) == 1
    assert _breaking_changes(before, {"job": before["job"] | {"size": ("INTEGER", True, True)}}) == []


def test_documents_get_the_present_form_of_their_canonical_url(empty_db: Database) -> None:
    """Of two that become one the older gets it; the other stays as it was."""
    _upgrade_to(empty_db, "0020")
    urls = ["https://a.org", "https://a.org/", "https://a.org:443/%7ex", "https://b.org/y", None]
    insert = sa.text(
        "INSERT INTO document (tenant, url, canonical_url, is_mobile, tags, metadata, source, chunk_count, created_at,"
        " updated_at) VALUES ('default', :url, :url, false, '[]', '{}', 'api', 0, '2026-01-01 00:00:00+00:00',"
        " '2026-01-01 00:00:00+00:00')"
    )
    with empty_db.engine.begin() as connection:
        for url in urls:
            connection.execute(insert, {"url": url})
    migrate.upgrade(empty_db)
    with empty_db.engine.connect() as connection:
        stored = list(connection.scalars(sa.text("SELECT canonical_url FROM document ORDER BY id")))
    assert stored == ["https://a.org", "https://a.org/", "https://a.org/~x", "https://b.org/y", None]
