"""Import of contents that another system stored, under the ids that its callers know.

All versions are imported first, then only the newest of each document is indexed, so none is embedded twice.
Both steps are repeatable: a version stores its original id and is `adopted` until the second step processes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import sql
from app.documents.accept.accept import About, Content, find_or_make, known_id, make_version
from app.documents.jobs import IngestDocument
from app.documents.models import MAX_URL_BYTES, Document, DocumentVersion
from app.documents.text import clean_line
from app.jobs.ledger.enqueue import enqueue

IMPORTED_STATE = "adopted"
# Versions that settle() processes in one transaction.
AT_ONCE = 100
# Ids left free for content that the other system still receives until the final import.
ROOM = 1_000_000
# Callers that parse ids as JavaScript numbers lose digits beyond 2**53.
MAX_ID = 2**53 - 1 - ROOM
# Jobs for current pages come before imported ones on the same queue.
PRIORITY = -10
_MARK = "older_id"
_LOOK = sa.select(
    DocumentVersion.id, DocumentVersion.tenant, DocumentVersion.url, DocumentVersion.crawl_session,
    DocumentVersion.fields,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """One content as the other system stored it; `extra` is merged into the fields of its version."""

    id: int
    about: About
    content: Content
    created_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The outcome for one content; `version_id` is None if nothing was written and the id is not free."""

    older_id: int
    was_here: bool
    version_id: int | None


@dataclass(frozen=True, slots=True)
class _Free:
    """The id that an imported version gets; None means the next free one."""

    id: int | None


def reserve_ids(session: Session, largest: int) -> None:
    """Keep the database from assigning version ids up to `largest` automatically."""
    if sql.is_postgres(session):
        sequence = session.scalar(sa.text("SELECT pg_get_serial_sequence('document_version', 'id')"))
        last_id = session.scalar(sa.text("SELECT nextval(CAST(:name AS regclass))"), {"name": sequence})
        if last_id is not None and last_id <= largest:
            session.execute(
                sa.text("SELECT setval(CAST(:name AS regclass), :value)"), {"name": sequence, "value": largest + ROOM}
            )
        return
    named = {"name": DocumentVersion.__tablename__}
    last_id = session.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), named)
    if last_id is None:
        session.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, 0)"), named)
    if last_id is None or last_id <= largest:
        raised = named | {"value": largest + ROOM}
        session.execute(sa.text("UPDATE sqlite_sequence SET seq = :value WHERE name = :name"), raised)


def plan_import(session: Session, olders: Sequence[ImportedVersion], *, tenant: str) -> list[ImportResult]:
    """Return the results that import_versions() would have, without writing."""
    places = _places(session, olders, tenant)
    return [
        ImportResult(older.id, isinstance(place, int), place.id if isinstance(place, _Free) else place)
        for older, place in zip(olders, places, strict=True)
    ]


def import_versions(session: Session, olders: Sequence[ImportedVersion], *, tenant: str) -> list[ImportResult]:
    """Store each content as a version of its document, under its old id if that is free; existing versions stay."""
    results: list[int | DocumentVersion] = []
    for older, place in zip(olders, _places(session, olders, tenant), strict=True):
        if isinstance(place, int):
            results.append(place)
            continue
        document_id = find_or_make(session, older.about, tenant=tenant)
        version = make_version(document_id, older.about, older.content, tenant=tenant)
        version.state = IMPORTED_STATE
        version.fields = version.fields | dict(older.extra) | {_MARK: older.id}
        version.created_at = older.created_at or version.created_at
        if place.id is not None:
            version.id = place.id
        results.append(version)
    session.add_all([result for result in results if isinstance(result, DocumentVersion)])
    session.flush()
    return [
        ImportResult(older.id, isinstance(result, int), result if isinstance(result, int) else result.id)
        for older, result in zip(olders, results, strict=True)
    ]


def settle(session: Session, after_id: int, *, tenant: str) -> tuple[int | None, int]:
    """Queue indexing for the newest imported version of the next documents; older ones become history.

    Returns the last id processed, None at the end, and the number of jobs queued.
    """
    waiting = (DocumentVersion.tenant == tenant, DocumentVersion.state == IMPORTED_STATE)
    query = sa.select(DocumentVersion.id, DocumentVersion.document_id).where(*waiting, DocumentVersion.id > after_id)
    rows = session.execute(query.order_by(DocumentVersion.id).limit(AT_ONCE)).all()
    if not rows:
        return None, 0
    documents = sorted({row.document_id for row in rows})
    # In id order, like every other code that locks documents.
    lock = sa.select(Document.id).where(Document.id.in_(documents)).order_by(Document.id).with_for_update()
    newest = _newest(session, list(session.scalars(lock)))
    change = sa.update(DocumentVersion)
    session.execute(change.where(DocumentVersion.id.in_(newest.values())).values(state="received"))
    session.execute(change.where(DocumentVersion.document_id.in_(documents), *waiting).values(state="superseded"))
    for document_id, version_id in newest.items():
        job = IngestDocument(document_id=document_id, version_id=version_id)
        enqueue(session, job, tenant=tenant, document_id=document_id, priority=PRIORITY)
    return rows[-1].id, len(newest)


def _newest(session: Session, documents: Sequence[int]) -> dict[int, int]:
    """Map each document to the imported version to index, if the newest version is imported and changes something."""
    columns = (
        DocumentVersion.id, DocumentVersion.document_id, DocumentVersion.state, DocumentVersion.fetched_at,
        DocumentVersion.content_hash,
    )  # fmt: skip
    versions: dict[int, list[Any]] = defaultdict(list)
    for row in session.execute(sa.select(*columns).where(DocumentVersion.document_id.in_(documents))):
        versions[row.document_id].append(row)
    result = {}
    for document_id, rows in versions.items():
        newest = max(rows, key=lambda row: (row.fetched_at, row.id))
        searched = {row.content_hash for row in rows if row.state in ("current", "received")}
        if newest.state == IMPORTED_STATE and newest.content_hash not in searched:
            result[document_id] = newest.id
    return result


def _places(session: Session, olders: Sequence[ImportedVersion], tenant: str) -> list[int | _Free]:
    """Return for each content the id of its existing version, or the id it may use."""
    ids = [older.id for older in olders if 0 < older.id <= MAX_ID]
    held = {row.id: row for row in session.execute(_LOOK.where(DocumentVersion.id.in_(ids)))}
    return [_place(session, older, held.get(older.id), tenant) for older in olders]


def _place(session: Session, older: ImportedVersion, held: Any, tenant: str) -> int | _Free:
    if held is None and 0 < older.id <= MAX_ID:
        return _Free(older.id)
    if held is not None and held.tenant == tenant and _is_same(held, older):
        return older.id
    document_id = known_id(session, older.about, tenant=tenant)
    versions = _LOOK.where(DocumentVersion.document_id == document_id).order_by(DocumentVersion.id)
    return next((int(row.id) for row in session.execute(versions) if _is_same(row, older)), _Free(None))


def _is_same(row: Any, older: ImportedVersion) -> bool:
    """Compare identity without the body, which the other system may have rewritten."""
    identity = (row.fields.get(_MARK), row.url, row.crawl_session)
    return identity == (
        older.id,
        clean_line(older.about.url, MAX_URL_BYTES),
        clean_line(older.content.crawl_session, 255),
    )
