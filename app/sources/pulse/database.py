"""Read the older service's tables in PostgreSQL, in the order of their keys and a few rows at a time.

Its versions differ in their columns; those that exist are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from app.core.errors import ConfigError, Unavailable

SCHEMA = "webhook"
SESSIONS, CONTENT, EVENTS = "crawl_sessions", "scraped_content", "change_events"
BATCH = 200
# Limit of one batch in memory, in addition to the number of rows.
MAX_BATCH_BYTES = 16 * 1024 * 1024
CONNECT_TIMEOUT_S = 5
# A screenshot is a URL or the image itself; longer values, which are images, are not read.
MAX_SCREENSHOT_CHARACTERS = 2048
REQUIRED = {SESSIONS: {"job_id"}, CONTENT: {"id", "url"}, EVENTS: {"id", "watch_url"}}
_COLUMNS = {
    SESSIONS: (
        "job_id", "base_url", "operation_type", "status", "success", "error_message", "extra_metadata", "initiated_at",
        "started_at", "completed_at", "created_at",
    ),
    CONTENT: (
        "id", "crawl_session_id", "url", "source_url", "content_source", "markdown", "html", "links", "screenshot",
        "metadata", "scraped_at", "created_at",
    ),
    EVENTS: (
        "id", "watch_id", "watch_url", "detected_at", "diff_summary", "snapshot_url", "rescrape_job_id",
        "rescrape_status", "indexed_at", "metadata",
    ),
}  # fmt: skip
_LONG = {CONTENT: ("markdown", "html", "links", "metadata"), EVENTS: ("diff_summary", "snapshot_url", "metadata")}
_FIRST = -(2**63)

Row = dict[str, Any]


class PulseDatabase:
    """Connection to the older service's database.

    Raises ConfigError if the server, database or schema does not exist, Unavailable if the connection fails later.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        try:
            with self._engine.connect() as connection:
                self._types = _columns(connection)
        except DBAPIError as error:
            raise ConfigError(f"the older database cannot be read: {_line(error)}") from error
        except ValueError as error:
            raise ConfigError(f"the older database cannot be reached: {error}") from error
        if not self._types:
            raise ConfigError(f"the older database has no schema '{SCHEMA}' with tables that may be read")
        missing = REQUIRED[CONTENT] - self._types.get(CONTENT, {}).keys()
        if missing:
            raise ConfigError(f"the older database has no {', '.join(sorted(missing))} in {SCHEMA}.{CONTENT}")
        if "int" not in self._types[CONTENT]["id"]:
            raise ConfigError(f"the ids of {SCHEMA}.{CONTENT} in the older database must be integers")

    def close(self) -> None:
        self._engine.dispose()

    def count(self, table: str) -> int:
        """Return the number of rows; 0 if the table does not exist."""
        if table not in self._types:
            return 0
        return int(self._all(f"SELECT count(*) AS rows FROM {SCHEMA}.{table}")[0]["rows"])

    def largest_id(self, up_to: int) -> int:
        """Return the largest id of a content up to this limit; 0 without rows."""
        rows = self._all(f"SELECT max(id) AS id FROM {SCHEMA}.{CONTENT} WHERE id <= :last", last=up_to)
        return int(rows[0]["id"] or 0)

    def sessions(self) -> Iterator[list[Row]]:
        """Yield crawl sessions by job_id; nothing if the table or that column does not exist."""
        if not REQUIRED[SESSIONS] <= self._types.get(SESSIONS, {}).keys():
            return
        kind = "uuid" if self._types[SESSIONS]["job_id"] == "uuid" else "text"
        query = f"SELECT {self._selected(SESSIONS)} FROM {SCHEMA}.{SESSIONS}"
        order = f"ORDER BY {SESSIONS}.job_id LIMIT {BATCH}"
        rows = self._all(f"{query} WHERE job_id IS NOT NULL {order}")
        while rows:
            yield rows
            after = f"WHERE {SESSIONS}.job_id > CAST(:after AS {kind})"
            rows = self._all(f"{query} {after} {order}", after=rows[-1]["job_id"])

    def contents(self, most_bytes: int) -> Iterator[list[Row]]:
        """Yield contents by id; a row with a longer body has only `id` and `size_bytes`."""
        return self._by_id(CONTENT, most_bytes)

    def events(self, most_bytes: int) -> Iterator[list[Row]]:
        """Yield changes like contents(); nothing if the table or a required column does not exist."""
        types = self._types.get(EVENTS, {})
        if REQUIRED[EVENTS] <= types.keys() and "int" in types["id"]:
            yield from self._by_id(EVENTS, most_bytes)

    def _by_id(self, table: str, most_bytes: int) -> Iterator[list[Row]]:
        after = _FIRST
        while sizes := self._sizes(table, after):
            after = sizes[-1]["id"]
            for part in _parts(sizes, most_bytes):
                wanted = [row["id"] for row in part if row["size_bytes"] <= most_bytes]
                yield [row for row in part if row["size_bytes"] > most_bytes] + self._rows(table, wanted)

    def _sizes(self, table: str, after: int) -> list[Row]:
        long = [name for name in _LONG[table] if name in self._types[table]]
        size = " + ".join(f"coalesce(octet_length(CAST({name} AS text)), 0)" for name in long) or "0"
        query = f"SELECT id, {size} AS size_bytes FROM {SCHEMA}.{table}"
        return self._all(f"{query} WHERE id > :after ORDER BY id LIMIT {BATCH}", after=after)

    def _rows(self, table: str, ids: Sequence[int]) -> list[Row]:
        if not ids:
            return []
        query = f"SELECT {self._selected(table)} FROM {SCHEMA}.{table}"
        return self._all(f"{query} WHERE id = ANY(:ids) ORDER BY {table}.id", ids=list(ids))

    def _selected(self, table: str) -> str:
        types = self._types[table]
        return ", ".join(f"{_expression(name, types[name])} AS {name}" for name in _COLUMNS[table] if name in types)

    def _all(self, query: str, **values: Any) -> list[Row]:
        with _translate_errors(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(query), values).mappings()]


def _parts(sizes: list[Row], most_bytes: int) -> Iterator[list[Row]]:
    """Split the rows into batches that fit into memory; rows that are not read count as 0 bytes."""
    part: list[Row] = []
    weight = 0
    for row in sizes:
        size = row["size_bytes"] if row["size_bytes"] <= most_bytes else 0
        if part and weight + size > MAX_BATCH_BYTES:
            yield part
            part, weight = [], 0
        part.append(row)
        weight += size
    yield part


def _expression(name: str, kind: str) -> str:
    if kind.startswith("timestamp"):  # Python has no infinite times, and its years end at 9999
        return f"CASE WHEN {name} > '0001-01-02' AND {name} < '9999-12-30' THEN {name} END"
    if name == "screenshot":
        return (
            f"CASE WHEN octet_length(CAST({name} AS text)) <= {MAX_SCREENSHOT_CHARACTERS} THEN CAST({name} AS text) END"
        )
    return name if name in ("id", "success") else f"CAST({name} AS text)"


def _columns(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """Return the type of each column by table."""
    query = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = :schema"
    types: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(sa.text(query), {"schema": SCHEMA}):
        types.setdefault(table, {})[column] = kind
    return types


def _engine(url: str) -> sa.Engine:
    """Return an engine for the URL of any driver, since the service's own is for asyncpg."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() not in ("postgresql", "postgres"):
            raise ConfigError(f"the older service's database must be PostgreSQL, not {parsed.get_backend_name()}")
        if "ssl" in parsed.query:
            parsed = parsed.update_query_dict({"sslmode": str(parsed.query["ssl"])}).difference_update_query(["ssl"])
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=1,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "prepare_threshold": None},
            execution_options={"postgresql_readonly": True},
        )
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError("invalid database URL (example: postgresql://user@host/name)") from error


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise Unavailable(f"the older database cannot be read: {_line(error)}", code="older") from error


def _line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0] or type(error.orig).__name__
