"""Fixtures of tests of documents."""

from __future__ import annotations

import pytest

from app.core.db import Database
from tests.support.desk import Desk


@pytest.fixture
def desk(db: Database) -> Desk:
    """A worker's hand on a fresh database, SQLite and then PostgreSQL."""
    return Desk(db)
