"""Schema revisions of the database and of this program, read without loading Alembic.

Each process checks them at its start; Alembic would be a fifth of a worker's imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import Base, Database

# Kind, table and name of everything that the migrations have made.
_PARTS = {
    "sqlite": """
        SELECT 'table', name, '' FROM sqlite_master WHERE type = 'table'
        UNION ALL SELECT type, tbl_name, name FROM sqlite_master WHERE type IN ('index', 'trigger')
        UNION ALL SELECT 'column', m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
        WHERE m.type = 'table'""",
    "postgresql": """
        SELECT 'table', relname::text, '' FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
        UNION ALL SELECT 'column', c.relname::text, a.attname::text
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT 'index', tablename::text, indexname::text FROM pg_indexes WHERE schemaname = current_schema()
        UNION ALL SELECT 'trigger', c.relname::text, t.tgname::text
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal""",
}
# No model declares it; the first migration makes it.
_TRIGGERS = {("trigger", "job", "job_moves")}
MAX_NAMED_PARTS = 3
SCRIPTS = Path(__file__).parent.parent / "migrations"
_TABLE = "alembic_version"


@cache
def head() -> str:
    """Return this program's revision: migration files are named by it, in one line."""
    return max(path.name.partition("_")[0] for path in (SCRIPTS / "versions").glob("[0-9]*_*.py"))


def current(database: Database) -> str | None:
    """Return the database's revision; None for an empty one. Raises Unavailable if SQL does not answer."""
    return database.read(_version)


def _version(session: Session) -> str | None:
    if not sa.inspect(session.connection()).has_table(_TABLE):
        return None
    revision: str | None = session.scalar(sa.text(f"SELECT version_num FROM {_TABLE}"))
    return revision


def fault(session: Session) -> str | None:
    """Return one phrase that tells how the schema differs from the one of this program; None if it has all parts.

    Compared are the models that this process has imported. A newer schema may have more parts.
    """
    version = _version(session)
    if version is None:
        return "there is no schema; run `millrace migrate`"
    missing = _missing(session)
    if version < head():
        named = f" and lacks {_name(missing)}" if missing else ""
        return f"the schema is at {version}{named}, not {head()}; run `millrace migrate`"
    if missing:
        return f"the schema is at {version}, but {_name(missing)} is missing; restore a backup"
    return None


def _missing(session: Session) -> list[str]:
    connection = session.connection()
    parts = {tuple(row) for row in connection.execute(sa.text(_PARTS[connection.dialect.name]))}
    tables = {name for kind, name, _ in parts if kind == "table"}
    missing = [f"table {table.name}" for table in _tables() if table.name not in tables]
    # The parts of a missing table are not named as well.
    rest = sorted(part for part in {*_expected(), *_TRIGGERS} - parts if part[1] in tables)
    return missing + [f"{kind} {table}.{name}" if kind == "column" else f"{kind} {name}" for kind, table, name in rest]


def _tables() -> list[sa.Table]:
    """Return the tables of this program, without those of a user's own modules."""
    own = [mapper for mapper in Base.registry.mappers if mapper.class_.__module__.partition(".")[0] == "app"]
    return sorted((cast(sa.Table, mapper.local_table) for mapper in own), key=lambda table: table.name)


def _expected() -> Iterator[tuple[str, str, str]]:
    for table in _tables():
        yield from (("column", table.name, column.name) for column in table.columns)
        yield from (("index", table.name, str(index.name)) for index in table.indexes)


def _name(parts: list[str]) -> str:
    more = len(parts) - MAX_NAMED_PARTS
    return ", ".join(parts[:MAX_NAMED_PARTS]) + (f" and {more} more" if more > 0 else "")
