"""A schema that is not whole is found, whichever part is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import app.main  # noqa: F401  all models
from app.core import schema
from app.core.db import Database
from app.core.errors import DatabaseUnavailable


@pytest.fixture(params=["sqlite_url", "copied_postgres_url"])
def whole(request: pytest.FixtureRequest) -> Iterator[Database]:
    database = Database(request.getfixturevalue(request.param))
    yield database
    database.close()


def _execute(database: Database, statement: str) -> None:
    database.transaction(lambda session: session.execute(sa.text(statement)))


def test_the_schema_of_the_migrations_is_whole(whole: Database) -> None:
    assert whole.read(schema.fault) is None


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("DROP TABLE attempt", "table attempt"),
        ("DROP TABLE installation_fact", "table installation_fact"),
        ("ALTER TABLE job DROP COLUMN result", "column job.result"),
        ("DROP INDEX ix_document_domain", "index ix_document_domain"),
        ("DROP TRIGGER job_moves{on_job}", "trigger job_moves"),
    ],
)
def test_a_missing_part_is_named(whole: Database, statement: str, part: str) -> None:
    _execute(whole, statement.format(on_job=" ON job" if whole.dialect == "postgresql" else ""))
    fault = whole.read(schema.fault)
    assert fault is not None and part in fault and "backup" in fault


def test_a_migration_that_stopped_half_way_is_named(whole: Database) -> None:
    _execute(whole, "DROP TABLE crawl_page")
    _execute(whole, "UPDATE alembic_version SET version_num = '0019'")
    fault = whole.read(schema.fault)
    assert fault is not None and "0019" in fault and "table crawl_page" in fault and "millrace migrate" in fault


def test_a_newer_schema_is_whole(whole: Database) -> None:
    """The version before works on the schema of the next one."""
    _execute(whole, "UPDATE alembic_version SET version_num = '9999'")
    _execute(whole, "ALTER TABLE job ADD COLUMN novelty INTEGER")
    assert whole.read(schema.fault) is None


def test_a_missing_column_is_a_schema_that_does_not_fit(whole: Database) -> None:
    _execute(whole, "ALTER TABLE job DROP COLUMN result")
    with pytest.raises(DatabaseUnavailable) as caught:
        _execute(whole, "SELECT result FROM job")
    assert caught.value.code == "database_schema"
