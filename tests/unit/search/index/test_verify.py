"""The proof that an index holds what SQL says, on each engine; what is wrong in SQL itself is seen as well."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.search.models import Chunk
from tests.support.desk import Desk


def test_consistent_index_is_verified(desk: Desk) -> None:
    """Over more than one tenant; after replacements and deletes."""
    for n in range(6):
        desk.put(f"# Mill {n}\n\n" + "The wheel turns. " * 120, external_id=str(n))
    desk.put("the heron", external_id="3")
    desk.delete("5")
    desk.work(desk.give("a secret mill", external_id="x", tenant="acme").job.id)
    desk.follow()
    report = desk.verify()
    assert report["ok"] and report["repaired"] == 0
    assert report["missing"] == report["extra"] == report["different"] == []
    assert report["documents"] == 6
    rows = desk.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(Chunk)))
    assert report["chunks"] == report["vectors"] == rows
    assert report["postings"] > report["documents"]


def test_empty_index_is_consistent(desk: Desk) -> None:
    assert desk.verify()["ok"]


def _forget(session: Session, document_id: int) -> None:
    session.execute(sa.delete(Chunk).where(Chunk.document_id == document_id))


def test_rows_edited_without_a_change_are_found(desk: Desk) -> None:
    """Rows that were edited by hand: the index cannot detect them; the verification does and repairs them."""
    desk.put("the mill", external_id="1")
    desk.put("the wheel", external_id="2")
    desk.find("mill")
    desk.db.transaction(_forget, 2)
    report = desk.verify(repair=True)
    # An embedded engine of this process has read the two before; a worker's own would be opened again.
    assert report["extra"] == ["2"] and report["repaired"] == 1 and not report["ok"]
    desk.follow()
    assert desk.verify()["ok"]
    assert desk.find("wheel", mode="keyword")["total"] == 0
