"""A document's history: its versions, and what one says that another does not."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.core.errors import InvalidInput, NotFound
from app.documents.models import Document, DocumentVersion

# difflib takes the square of this many lines at the worst: some seconds. Longer texts are compared by paragraphs.
MOST_LINES = 5_000
_COLUMNS = (
    "id", "state", "format", "content_hash", "url", "status_code", "media_type", "file_name", "size_bytes",
    "page_count", "language", "crawl_session", "fetched_at", "indexed_at", "created_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Text:
    """A version's text and which it is."""

    id: int
    text: str
    fetched_at: str | None


def listed(session: Session, document: Document, *, before_id: int | None, limit: int) -> list[dict[str, Any]]:
    """The newest first, without their texts."""
    query = sa.select(*(getattr(DocumentVersion, name) for name in _COLUMNS))
    query = query.where(DocumentVersion.document_id == document.id)
    if before_id is not None:
        query = query.where(DocumentVersion.id < before_id)
    rows = session.execute(query.order_by(DocumentVersion.id.desc()).limit(limit)).mappings()
    return [_shown(dict(row), document) for row in rows]


def _shown(row: dict[str, Any], document: Document) -> dict[str, Any]:
    times = {name: moment(row[name]) for name in ("fetched_at", "indexed_at", "created_at")}
    return row | times | {"id": str(row["id"]), "is_current": row["id"] == document.version_id}


def pair(session: Session, document: Document, first: int | None, last: int | None) -> tuple[Text, Text]:
    """The texts of two versions: by default the current one, and the one that was searched before it.

    Raises NotFound where there is no such version, or it has no text yet.
    """
    new = _text(session, document, last if last is not None else document.version_id)
    if first is None:
        query = sa.select(DocumentVersion.id).where(
            DocumentVersion.document_id == document.id,
            DocumentVersion.id < new.id,
            DocumentVersion.state == "superseded",
            DocumentVersion.text.is_not(None),
        )
        first = session.scalar(query.order_by(DocumentVersion.id.desc()).limit(1))
        if first is None:
            raise NotFound("there is no version before this one", code="version_not_found")
    return _text(session, document, first), new


def _text(session: Session, document: Document, version_id: int | None) -> Text:
    columns = (DocumentVersion.id, DocumentVersion.text, DocumentVersion.fetched_at)
    query = sa.select(*columns).where(
        DocumentVersion.document_id == document.id, DocumentVersion.id == min(version_id or 0, 2**62)
    )
    row = session.execute(query).one_or_none()
    if row is None or row.text is None:
        raise NotFound(f"there is no indexed version {version_id} of this document", code="version_not_found")
    return Text(row.id, row.text, moment(row.fetched_at))


def diff(old: Text, new: Text, *, context: int = 3) -> dict[str, Any]:
    """{from, to, changed, added, removed, diff}: lines in numbers, and a unified diff of the two.

    Computes: not for the loop. Raises InvalidInput for texts too long to be compared.
    """
    before, after = old.text.splitlines(), new.text.splitlines()
    if max(len(before), len(after)) > MOST_LINES:
        before, after = old.text.split("\n\n"), new.text.split("\n\n")
    if max(len(before), len(after)) > MOST_LINES:
        raise InvalidInput(f"more than {MOST_LINES:,} paragraphs: too long to be compared", code="diff_size")
    lines = list(
        difflib.unified_diff(before, after, str(old.id), str(new.id), old.fetched_at or "", new.fetched_at or "",
                             n=context, lineterm="")
    )  # fmt: skip
    return {
        "from": str(old.id),
        "to": str(new.id),
        "changed": bool(lines),
        "added": sum(line.startswith("+") for line in lines[2:]),
        "removed": sum(line.startswith("-") for line in lines[2:]),
        "diff": "\n".join(lines),
    }
