"""History of a document: its versions, and the differences between two of them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.clock import moment
from app.core.errors import InvalidInput, NotFound
from app.documents.models import Document, DocumentVersion

# difflib takes quadratic time in the number of lines, some seconds at this limit. Longer texts are compared by
# paragraph.
MAX_LINES = 5_000
_COLUMNS = (
    "id", "state", "format", "content_hash", "url", "status_code", "media_type", "file_name", "size_bytes",
    "page_count", "language", "crawl_session", "fetched_at", "indexed_at", "created_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class VersionText:
    """The id and text of a version."""

    id: int
    text: str
    fetched_at: str | None


def list_versions(session: Session, document: Document, *, before_id: int | None, limit: int) -> list[dict[str, Any]]:
    """List versions without their texts, newest first."""
    query = sa.select(*(getattr(DocumentVersion, name) for name in _COLUMNS))
    query = query.where(DocumentVersion.document_id == document.id)
    if before_id is not None:
        query = query.where(DocumentVersion.id < before_id)
    rows = session.execute(query.order_by(DocumentVersion.id.desc()).limit(limit)).mappings()
    return [_view(dict(row), document) for row in rows]


def _view(row: dict[str, Any], document: Document) -> dict[str, Any]:
    times = {name: moment(row[name]) for name in ("fetched_at", "indexed_at", "created_at")}
    return row | times | {"id": str(row["id"]), "is_current": row["id"] == document.version_id}


def find_pair(
    session: Session, document: Document, first: int | None, last: int | None
) -> tuple[VersionText, VersionText]:
    """Return the texts of two versions: by default the current one and the one searched before it.

    Raises NotFound for a version that does not exist or has no text yet.
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
            raise NotFound("this version has no earlier one", code="version_not_found")
    return _text(session, document, first), new


def _text(session: Session, document: Document, version_id: int | None) -> VersionText:
    columns = (DocumentVersion.id, DocumentVersion.text, DocumentVersion.fetched_at)
    query = sa.select(*columns).where(
        DocumentVersion.document_id == document.id, DocumentVersion.id == min(version_id or 0, 2**62)
    )
    row = session.execute(query).one_or_none()
    if row is None or row.text is None:
        raise NotFound(f"version {version_id} of this document is missing or not indexed", code="version_not_found")
    return VersionText(row.id, row.text, moment(row.fetched_at))


def diff(old: VersionText, new: VersionText, *, context: int = 3) -> dict[str, Any]:
    """Return {from, to, changed, added, removed, diff}: numbers of lines, and a unified diff.

    Computes for seconds: do not call it on the event loop. Raises InvalidInput for texts too long to compare.
    """
    before, after = old.text.splitlines(), new.text.splitlines()
    if max(len(before), len(after)) > MAX_LINES:
        before, after = old.text.split("\n\n"), new.text.split("\n\n")
    if max(len(before), len(after)) > MAX_LINES:
        raise InvalidInput(f"more than {MAX_LINES:,} paragraphs: too long to be compared", code="diff_size")
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
