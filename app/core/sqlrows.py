"""Many rows in one statement: a JSON parameter that SQLite and PostgreSQL both read as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_POSTGRES = {"id": "uuid", "int": "bigint", "text": "text", "time": "timestamptz", "json": "jsonb"}


def table(dialect: str, columns: Mapping[str, str], *, name: str = "v", parameter: str = "rows") -> str:
    """SQL for a FROM clause. Columns: name → id, int, text, time or json; values come from `encode()`."""
    if dialect == "postgresql":
        typed = ", ".join(f"{column} {_POSTGRES[kind]}" for column, kind in columns.items())
        return f"jsonb_to_recordset(CAST(:{parameter} AS jsonb)) AS {name}({typed})"
    picked = ", ".join(f"value ->> '{column}' AS {column}" for column in columns)
    return f"(SELECT {picked} FROM json_each(:{parameter})) AS {name}"


def among(dialect: str, parameter: str = "ids") -> str:
    """SQL after `id` for "is one of these"; the parameter comes from `id_list()`.

    PostgreSQL finds the ids of an array by index; of a sub-select it guesses the size, and may read the whole table.
    """
    if dialect == "postgresql":
        return f"= ANY(CAST(:{parameter} AS uuid[]))"
    return f"IN (SELECT value FROM json_each(:{parameter}))"


def id_list(dialect: str, ids: Iterable[str]) -> str:
    """The parameter for `among()`; the ids must be UUIDs."""
    return f"{{{','.join(ids)}}}" if dialect == "postgresql" else json.dumps(list(ids))


def encode(dialect: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The parameter for `table()`; dicts and lists inside a row become JSON columns, what is missing NULL.

    Characters that a database cannot hold (NUL, half a surrogate pair) are left out or replaced.
    """
    sqlite = dialect == "sqlite"

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            utc = value if value.tzinfo is UTC else value.astimezone(UTC)
            return utc.replace(tzinfo=None).isoformat(" ", "microseconds") if sqlite else utc.isoformat()
        return json.dumps(value) if sqlite and isinstance(value, (dict, list)) else value

    text = json.dumps([{key: plain(value) for key, value in row.items() if value is not None} for row in rows])
    if "\\u0000" in text or "\\ud" in text:  # or an emoji, which costs a second round and is left as it is
        clean: list[dict[str, Any]] = storable(list(rows))
        return text if clean == list(rows) else encode(dialect, clean)
    return text


def storable(value: Any) -> Any:
    """The value with every text in it as a database can hold it."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {storable(key): storable(item) for key, item in value.items()}
    return [storable(item) for item in value] if isinstance(value, (list, tuple)) else value
