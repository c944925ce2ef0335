"""SQL that differs between SQLite and PostgreSQL, and many rows in one statement.

A JSON parameter carries the rows; both databases read it as a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

Dialect = Literal["sqlite", "postgresql"]

_POSTGRES = {"id": "uuid", "int": "bigint", "text": "text", "time": "timestamptz", "json": "jsonb"}


def dialect_of(session: Session) -> Dialect:
    """Return the name of the session's database: sqlite or postgresql."""
    return cast(Dialect, session.get_bind().dialect.name)


def is_postgres(session: Session) -> bool:
    return dialect_of(session) == "postgresql"


def for_update(dialect: str, *, skip_locked: bool = False) -> str:
    """SQL at the end of a SELECT that locks its rows; empty on SQLite, where the writer holds the whole file."""
    if dialect == "sqlite":
        return ""
    return " FOR UPDATE SKIP LOCKED" if skip_locked else " FOR UPDATE"


def id_cast(dialect: str, parameter: str) -> str:
    """SQL for a parameter that holds one job or worker id."""
    return f"CAST(:{parameter} AS {'uuid' if dialect == 'postgresql' else 'text'})"


def time_cast(dialect: str, parameter: str) -> str:
    """SQL for a parameter that holds a time, where the statement gives PostgreSQL no other type."""
    return f"CAST(:{parameter} AS timestamptz)" if dialect == "postgresql" else f":{parameter}"


def greatest(dialect: str) -> str:
    """The name of the function that returns the largest of its arguments."""
    return "max" if dialect == "sqlite" else "GREATEST"


def rows(dialect: str, columns: Mapping[str, str], *, name: str = "v", parameter: str = "rows") -> str:
    """SQL for a FROM clause that reads the rows of a parameter; its value comes from `encode_rows()`.

    `columns` maps each name to its type: id, int, text, time or json.
    """
    if dialect == "postgresql":
        typed = ", ".join(f"{column} {_POSTGRES[kind]}" for column, kind in columns.items())
        return f"jsonb_to_recordset(CAST(:{parameter} AS jsonb)) AS {name}({typed})"
    picked = ", ".join(f"value ->> '{column}' AS {column}" for column in columns)
    return f"(SELECT {picked} FROM json_each(:{parameter})) AS {name}"


def among(dialect: str, parameter: str = "ids") -> str:
    """SQL after `id` for "is one of these"; the value of the parameter comes from `ids()`.

    PostgreSQL finds the ids of an array by index. It guesses the size of a sub-select, and may read the whole table.
    """
    if dialect == "postgresql":
        return f"= ANY(CAST(:{parameter} AS uuid[]))"
    return f"IN (SELECT value FROM json_each(:{parameter}))"


def joined_on_id(dialect: str, key: str = "key_id", parameter: str = "ids") -> str:
    """SQL that joins a job to one row of `rows()`.

    PostgreSQL also gets the ids as an array, so that it uses the index. SQLite uses it without; the array would make
    it scan once more for each id.
    """
    same = f"job.id = {key}"
    return f"{same} AND job.id {among(dialect, parameter)}" if dialect == "postgresql" else same


def ids(dialect: str, values: Iterable[str]) -> str:
    """Encode ids as the parameter of `among()`; they must be UUIDs."""
    return f"{{{','.join(values)}}}" if dialect == "postgresql" else json.dumps(list(values))


def encode_rows(dialect: str, values: Sequence[Mapping[str, Any]]) -> str:
    """Encode rows as the parameter of `rows()`; dicts and lists inside a row become JSON columns, missing values NULL.

    Characters that a database cannot store (NUL, half a surrogate pair) are removed or replaced.
    """
    is_sqlite = dialect == "sqlite"

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            utc = value if value.tzinfo is UTC else value.astimezone(UTC)
            return utc.replace(tzinfo=None).isoformat(" ", "microseconds") if is_sqlite else utc.isoformat()
        return json.dumps(value) if is_sqlite and isinstance(value, (dict, list)) else value

    text = json.dumps([{key: plain(value) for key, value in row.items() if value is not None} for row in values])
    if "\\u0000" in text or "\\ud" in text:  # an emoji also matches: it costs one more look and stays as it is
        clean: list[dict[str, Any]] = storable(list(values))
        return text if clean == list(values) else encode_rows(dialect, clean)
    return text


def storable(value: Any) -> Any:
    """Return the value with every text in a form that a database can store."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    return [storable(item) for item in value] if isinstance(value, (list, tuple)) else value


def insert(dialect: str, table: Any) -> Any:
    """Return an INSERT of the dialect, which knows ON CONFLICT."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def row_count(session: Session, statement: sa.Executable) -> int:
    """Run an UPDATE or DELETE; return how many rows it changed. Objects loaded before do not see the change."""
    result = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(result, sa.CursorResult)
    return result.rowcount
