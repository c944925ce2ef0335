"""Count rows of a table."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from app.core.db import database


def count_rows(table: Any) -> int:
    """Return the number of rows of the table in this process\'s database."""
    return database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(table))) or 0
