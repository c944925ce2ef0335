"""Migrate the schema to the newest version; one process does it, all others wait."""
# ruff: noqa: E402  alembic is to be quiet while it is imported

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

logging.getLogger("alembic").setLevel(logging.WARNING)  # else each start logs the plugins that alembic imports

from alembic import command
from alembic.config import Config

from app.core.db import Database, database
from app.core.schema import SCRIPTS, head

LOCK = 52100  # PostgreSQL advisory lock: two containers that start at once migrate once


def upgrade(database: Database) -> str:
    """Migrate to head; return the revision reached."""
    config = _config()
    with _one_at_a_time(database), database.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return head()


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    """On PostgreSQL, hold a lock in a separate transaction.

    A session lock behind a pooler may be taken on one server and released on another, which then keeps it.
    """
    if database.dialect != "postgresql":
        yield
        return
    with database.engine.connect() as guard, guard.begin():
        guard.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        guard.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        yield


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    return config


def revision(message: str) -> None:
    """Write a migration that changes the schema of the settings' database to match the models."""
    with database().engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.revision(config, message, autogenerate=True)


if __name__ == "__main__":
    revision(sys.argv[2])
