"""One new row, by one statement that is compiled once: for what is written hundreds of times a second."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.core.db import Base


def add(session: Session, model: type[Base], values: Mapping[str, Any]) -> int:
    """The id of the new row. Values are by the names of columns; what is left out has the column's default."""
    key = session.connection().execute(_plain(model), values).inserted_primary_key
    assert key is not None
    return int(key[0])


def add_unless_there(session: Session, model: type[Base], values: Mapping[str, Any]) -> int | None:
    """The same; None where a row is there already that a unique index allows once.

    Waits for another transaction that writes such a row, without a savepoint that would have to be rolled back.
    """
    connection = session.connection()
    found = connection.execute(_unless_there(connection.dialect.name, model), values).scalar_one_or_none()
    return None if found is None else int(found)


@lru_cache
def _plain(model: type[Base]) -> sa.Insert:
    return sa.insert(cast(sa.Table, model.__table__))


@lru_cache
def _unless_there(dialect: str, model: type[Base]) -> Any:
    table = cast(sa.Table, model.__table__)
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return insert.on_conflict_do_nothing().returning(table.c.id)
