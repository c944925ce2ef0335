"""One row by one statement: its id, or None where a unique index holds one already."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import Database
from app.core.inserts import add, add_unless_there
from app.documents.models import Document


def _page(key: str | None) -> dict[str, object]:
    now = clock.now()
    return {"tenant": "default", "external_id": key, "created_at": now, "updated_at": now}


def test_duplicate_insert_is_skipped_and_the_transaction_continues(db: Database) -> None:
    def write(session: Session) -> list[int | None]:
        return [add_unless_there(session, Document, _page(key)) for key in ("a", "a", "b")]

    first, again, other = db.transaction(write)
    assert first is not None and again is None and other is not None and other > first
    assert db.read(lambda session: session.scalars(sa.select(Document.id)).all()) == [first, other]


def test_omitted_columns_get_their_defaults(db: Database) -> None:
    made = db.transaction(add, Document, _page(None))
    row = db.read(lambda session: session.get_one(Document, made))
    assert (row.tags, row.meta, row.source, row.chunk_count, row.version_id) == ([], {}, "api", 0, None)
