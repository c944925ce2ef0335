"""SQL: plain short functions in short transactions, the same on SQLite and PostgreSQL.

A function that touches the database is `def f(session, ...)`. Threads call `database().transaction(f, ...)`, async
code `await in_transaction(f, ...)`; so a transaction cannot stay open over a network call. Reads likewise.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session

from app.core import clock
from app.core.errors import ConfigError, DatabaseUnavailable
from app.core.settings import get_settings
from app.core.waiting import settled

P = ParamSpec("P")
T = TypeVar("T")

LOCK_PATIENCE_S = 5.0
# The first pauses are short, since most transactions are.
LOCK_PAUSES_S = (0.0005, 0.005)
# Of its own: whoever seeds the one that all share, as tests do, would have it moved on by us.
_dice = random.Random()
DEADLOCK_RETRIES = 3
_WRITE = {"millrace_write": True}
# Several statements of one read see one moment; SQLite has no other way.
_READ = {"postgresql": {"isolation_level": "REPEATABLE READ"}, "sqlite": {}}
_AGAIN = {"40001", "40P01"}  # serialization_failure, deadlock_detected
_WRONG = {"28000", "28P01", "3D000"}  # no such role, wrong password, no such database
_NO_SCHEMA = {"42P01", "42703"}  # undefined_table, undefined_column
_NO_SCHEMA_TEXT = re.compile(r"no such (table|column)\b|table \S+ has no column named ")
_READ_ONLY = "25006"  # a standby, or a server whose disk is nearly full
_WRONG_TEXT = ("password authentication failed", "does not exist", "no password supplied", "no pg_hba.conf entry")
# The length of every PostgreSQL connection attempt; a host that drops packets must not hold a request longer.
CONNECT_TIMEOUT_S = 3
# PostgreSQL ends a transaction that says nothing for so long: a frozen process or a lost host must not keep its locks,
# on which those wait who would give its jobs to others.
SILENT_TRANSACTION_S = 8
# A long read makes SQLite's log grow; after it the next writes cut the file to this size.
MAX_IDLE_WAL_BYTES = 8 * 1024 * 1024


class Base(DeclarativeBase):
    """The tables of all rooms; constraint names are fixed, so that migrations can name them."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware UTC times in and out; SQLite, which knows no zones, keeps them as UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


JsonColumn = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Database:
    """One engine and the two ways to use it: transaction() and read()."""

    def __init__(self, url: str, *, pool_size: int = 10, sqlite_sync: str = "normal", prepared: bool = True) -> None:
        self.engine = _make_engine(url, pool_size, sqlite_sync, prepared)
        self.dialect = self.engine.dialect.name
        # SQLite has one writer at a time: the threads of a process wait for each other here. That they asked for
        # SQLite's own lock again and again cost more than what they wrote.
        self._turn = threading.Lock() if self.dialect == "sqlite" else None
        # Six blocked writers held a read for 2 s in a shared pool (measured), hence two.
        self.writers = ThreadPoolExecutor(max(2, pool_size // 2), thread_name_prefix="sql-write")
        self.readers = ThreadPoolExecutor(max(2, pool_size // 2), thread_name_prefix="sql-read")

    def transaction(self, f: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What f returns, committed; then what f left with `after_commit` is done.

        Deadlocks and serialisation failures are tried again. Raises Unavailable where SQL cannot be reached or
        written (locked for 5 s, read-only, disk full).
        """
        return self._run(True, f, *args, **kwargs)

    def read(self, f: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What f returns, from one consistent read that writes nothing."""
        return self._run(False, f, *args, **kwargs)

    def _run(self, write: bool, f: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        attempt = 0
        while True:
            session = Session(self.engine, expire_on_commit=False)
            committing, turn = False, self._turn if write else None
            if turn is not None and not turn.acquire(timeout=LOCK_PATIENCE_S):
                raise DatabaseUnavailable("the database is locked", retry_after_s=2)
            try:
                session.connection(execution_options=_WRITE if write else _READ[self.dialect])
                result = f(session, *args, **kwargs)
                committing = write
                if write:
                    session.commit()  # a read is ended by close(), which leaves its rows loaded
            except DBAPIError as error:
                _end(session)
                attempt += 1
                lost = error.connection_invalidated and not committing and attempt == 1
                if not lost and not (_sqlstate(error) in _AGAIN and attempt <= DEADLOCK_RETRIES):
                    raise _translated(error) from error
                time.sleep(_dice.uniform(0, 0.01 * attempt))
                continue
            except PoolTimeout as error:
                raise DatabaseUnavailable("all connections to the database are in use") from error
            finally:
                _end(session)
                if turn is not None:
                    turn.release()
            for run in session.info.get("after_commit", {}).values():
                run()
            return result

    def ping(self) -> None:
        """Raises Unavailable while SQL does not answer, ConfigError where it never will with these settings."""
        self.read(lambda session: session.execute(sa.text("SELECT 1")))

    def close(self) -> None:
        self.writers.shutdown(wait=True)
        self.readers.shutdown(wait=True)
        self.engine.dispose()


def after_commit(session: Session, key: str, make: Callable[[], Callable[[], None]]) -> Any:
    """The callable that `make` made for this key in this session; it runs once, after the commit.

    A rolled back transaction runs none. It must not raise: the work is already true.
    """
    waiting = session.info.setdefault("after_commit", {})
    if key not in waiting:
        waiting[key] = make()
    return waiting[key]


_lock = threading.Lock()
_database: Database | None = None


def database() -> Database:
    """The database of this process, opened at first use."""
    global _database
    with _lock:
        if _database is None:
            settings = get_settings()
            _database = Database(
                settings.sql_url,
                pool_size=settings.database_pool,
                sqlite_sync=settings.sqlite_sync,
                prepared=settings.database_prepared,
            )
        return _database


def close_database() -> None:
    global _database
    with _lock:
        if _database is not None:
            _database.close()
            _database = None


async def in_transaction(f: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`database().transaction(f, ...)` in the writers' threads.

    Shielded: cancelled, it waits for its thread, which may still commit, and then raises CancelledError.
    """
    db = database()
    return await _hop(db.writers, partial(db.transaction, f, *args, **kwargs))


async def read(f: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`database().read(f, ...)` in the readers' threads."""
    db = database()
    return await _hop(db.readers, partial(db.read, f, *args, **kwargs))


async def _hop(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    future = asyncio.get_running_loop().run_in_executor(pool, contextvars.copy_context().run, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await settled(future)
        raise


def _make_engine(url: str, pool_size: int, sqlite_sync: str, prepared: bool) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "postgresql":
            timeout = {"connect_timeout": CONNECT_TIMEOUT_S, "prepare_threshold": 5 if prepared else None}
            return _make_postgres(parsed, pool_size, timeout)
        if parsed.get_backend_name() != "sqlite":
            raise ConfigError(
                f"MILLRACE_DATABASE_URL: only sqlite and postgresql are supported, not {parsed.drivername}"
            )
        return _make_sqlite(parsed, pool_size, sqlite_sync)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError(
            "MILLRACE_DATABASE_URL is not a database URL (example: postgresql://user@host/name)"
        ) from error


def _make_postgres(url: sa.URL, pool_size: int, options: dict[str, Any]) -> sa.Engine:
    engine = sa.create_engine(
        url, pool_size=pool_size, max_overflow=pool_size, pool_use_lifo=True, connect_args=options
    )

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        # Not as a start-up option, which PgBouncer refuses.
        connection.execute(f"SET idle_in_transaction_session_timeout = '{SILENT_TRANSACTION_S}s'")
        # Rows are found by their ids in memory or on flash; the default, made for turning disks, reads whole tables.
        connection.execute("SET random_page_cost = 1.1")
        connection.commit()

    return engine


def _make_sqlite(url: sa.URL, pool_size: int, sync: str) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        poolclass=sa.pool.QueuePool,
        pool_use_lifo=True,
        connect_args={"check_same_thread": False, "timeout": 0},
    )

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        deadline = clock.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or clock.monotonic() > deadline:
                    break  # a read-only file: reading still works
                time.sleep(_dice.uniform(0.0005, 0.005))
        for pragma in (
            f"synchronous={sync}",
            f"journal_size_limit={MAX_IDLE_WAL_BYTES}",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-16000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        statement = "BEGIN IMMEDIATE" if connection.get_execution_options().get("millrace_write") else "BEGIN"
        if not _begun(connection.connection.cursor(), statement):
            connection.exec_driver_sql(statement)  # which says what is wrong as all else is said

    return engine


def _begun(cursor: Any, statement: str) -> bool:
    """Open a transaction on SQLite, asking for its lock every 0.5 to 5 ms; False where that is not to be had.

    SQLite's own waiting has a long tail. Asked below SQLAlchemy, whose errors cost more than the question.
    """
    deadline, pause = clock.monotonic() + LOCK_PATIENCE_S, LOCK_PAUSES_S[0]
    while True:
        try:
            cursor.execute(statement)
            return True
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or clock.monotonic() > deadline:
                return False
        time.sleep(_dice.uniform(0.5, 1.0) * pause)
        pause = min(2 * pause, LOCK_PAUSES_S[1])


def _end(session: Session) -> None:
    """Roll back what was not committed and give the connection back; one that died meanwhile has nothing to lose."""
    try:
        session.close()
    except DBAPIError:
        session.invalidate()


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _translated(error: DBAPIError) -> Exception:
    """The error in our words; a bug (a broken constraint, wrong SQL) stays what it is."""
    text = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    if _sqlstate(error) in _WRONG or (
        isinstance(error, OperationalError) and _sqlstate(error) is None and any(t in text for t in _WRONG_TEXT)
    ):
        return ConfigError(f"MILLRACE_DATABASE_URL: the database refuses us: {text}", code="database_config")
    if _sqlstate(error) in _NO_SCHEMA or _NO_SCHEMA_TEXT.match(text):
        return DatabaseUnavailable(
            f"the schema is not the one of this program ({text}); run `millrace migrate`", code="database_schema"
        )
    unusable = error.connection_invalidated or _sqlstate(error) == _READ_ONLY
    if unusable or (isinstance(error, OperationalError) and not _is_wrong_sql(error)):
        return DatabaseUnavailable(f"the database cannot be used now: {text}", retry_after_s=2)
    return error


def _is_wrong_sql(error: OperationalError) -> bool:
    """SQLite tells a mistake in a statement by the same class as a full disk, but with its plainest code."""
    return getattr(error.orig, "sqlite_errorname", None) == "SQLITE_ERROR"
