"""Fixtures that the tests of search share."""

from __future__ import annotations

import pytest

from app.core.db import database as database_of_process
from tests.support.databases import SettingsEnv
from tests.support.desk import Desk


@pytest.fixture(params=["embedded-sqlite", "embedded-postgresql", "qdrant-sqlite"])
def desk(request: pytest.FixtureRequest, settings_env: SettingsEnv) -> Desk:
    """A worker's hand on a fresh database, SQLite and then PostgreSQL, and with either engine."""
    engine, _, database = request.param.partition("-")
    settings_env(database_url=request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url"))
    if engine == "qdrant":
        settings_env(search_engine="qdrant", qdrant_url=request.getfixturevalue("qdrant_url"))
    return Desk(database_of_process())
