"""Which revision a database is at and which one this program was written for, without loading what migrates.

Each process asks at its start; Alembic is a fifth of what a worker would import.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import Database

SCRIPTS = Path(__file__).parent.parent / "migrations"
_TABLE = "alembic_version"


def head() -> str:
    """The revision this program was written for: files are named by it, in one line."""
    return max(path.name.partition("_")[0] for path in (SCRIPTS / "versions").glob("[0-9]*_*.py"))


def current(database: Database) -> str | None:
    """The revision the database is at; None for an empty one. Raises Unavailable where SQL does not answer."""
    return database.read(_version)


def _version(session: Session) -> str | None:
    if not sa.inspect(session.connection()).has_table(_TABLE):
        return None
    found: str | None = session.scalar(sa.text(f"SELECT version_num FROM {_TABLE}"))
    return found
