"""Schema revisions of the database and of this program, read without loading Alembic.

Each process checks them at its start; Alembic would be a fifth of a worker's imports.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import Database

SCRIPTS = Path(__file__).parent.parent / "migrations"
_TABLE = "alembic_version"


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
