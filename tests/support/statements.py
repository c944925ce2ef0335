"""The statements that a block sends to the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from app.core.db import database


@contextmanager
def counting(word: str) -> Iterator[list[str]]:
    """Those of the block that name `word`."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if word in statement:
            seen.append(statement)

    sa.event.listen(database().engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(database().engine, "before_cursor_execute", note)
