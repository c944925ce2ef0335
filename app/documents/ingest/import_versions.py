"""Contents that another system has kept, under the ids that its callers hold: first all are taken, then the newest of
each document is indexed, so that none is embedded only to be replaced.

Both steps can be repeated: a version knows the id it had there, and is `adopted` until the second step has seen it.
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
from app.documents.accept.accept import About, Content, find_or_make, known_id, version_of
from app.documents.jobs import IngestDocument
from app.documents.models import LONGEST_URL, Document, DocumentVersion
from app.documents.text import clean_line
from app.jobs.ledger.enqueue import enqueue

ADOPTED = "adopted"
# How many versions settle() looks at in one transaction.
AT_ONCE = 100
# Ids that stay free for what the other system still receives, until it is switched off and the rest is taken.
ROOM = 1_000_000
# Callers that read ids as JavaScript's numbers lose digits beyond.
LARGEST_ID = 2**53 - 1 - ROOM
# Of two jobs on a queue today's page goes first.
PRIORITY = -10
_MARK = "older_id"
_LOOK = sa.select(
    DocumentVersion.id, DocumentVersion.tenant, DocumentVersion.url, DocumentVersion.crawl_session,
    DocumentVersion.fields,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Older:
    """One content as the other system kept it; `extra` stays beside the fields of its version."""

    id: int
    about: About
    content: Content
    created_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of one; `version_id` is None where nothing was written and the id is not free."""

    older_id: int
    was_here: bool
    version_id: int | None


@dataclass(frozen=True, slots=True)
class _Free:
    """The id that a content may have; None is whichever comes next."""

    id: int | None


def reserve_ids(session: Session, largest: int) -> None:
    """No version will be given an id up to `largest` by itself, whoever makes one."""
    if sql.is_postgres(session):
        sequence = session.scalar(sa.text("SELECT pg_get_serial_sequence('document_version', 'id')"))
        given = session.scalar(sa.text("SELECT nextval(CAST(:name AS regclass))"), {"name": sequence})
        if given is not None and given <= largest:
            session.execute(
                sa.text("SELECT setval(CAST(:name AS regclass), :value)"), {"name": sequence, "value": largest + ROOM}
            )
        return
    named = {"name": DocumentVersion.__tablename__}
    given = session.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), named)
    if given is None:
        session.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, 0)"), named)
    if given is None or given <= largest:
        raised = named | {"value": largest + ROOM}
        session.execute(sa.text("UPDATE sqlite_sequence SET seq = :value WHERE name = :name"), raised)


def judge(session: Session, olders: Sequence[Older], *, tenant: str) -> list[Adopted]:
    """What adopt() would do."""
    places = _places(session, olders, tenant)
    return [
        Adopted(older.id, isinstance(place, int), place.id if isinstance(place, _Free) else place)
        for older, place in zip(olders, places, strict=True)
    ]


def adopt(session: Session, olders: Sequence[Older], *, tenant: str) -> list[Adopted]:
    """Each as a version of its document, under its own id where that is free; what is here already stays as it is."""
    found: list[int | DocumentVersion] = []
    for older, place in zip(olders, _places(session, olders, tenant), strict=True):
        if isinstance(place, int):
            found.append(place)
            continue
        document_id = find_or_make(session, older.about, tenant=tenant)
        version = version_of(document_id, older.about, older.content, tenant=tenant)
        version.state = ADOPTED
        version.fields = version.fields | dict(older.extra) | {_MARK: older.id}
        version.created_at = older.created_at or version.created_at
        if place.id is not None:
            version.id = place.id
        found.append(version)
    session.add_all([one for one in found if isinstance(one, DocumentVersion)])
    session.flush()
    return [
        Adopted(older.id, isinstance(one, int), one if isinstance(one, int) else one.id)
        for older, one in zip(olders, found, strict=True)
    ]


def settle(session: Session, after_id: int, *, tenant: str) -> tuple[int | None, int]:
    """The next documents that have something adopted: their newest content is to be indexed, all else is history.

    The last id looked at, None at the end, and how many jobs were made.
    """
    waiting = (DocumentVersion.tenant == tenant, DocumentVersion.state == ADOPTED)
    query = sa.select(DocumentVersion.id, DocumentVersion.document_id).where(*waiting, DocumentVersion.id > after_id)
    rows = session.execute(query.order_by(DocumentVersion.id).limit(AT_ONCE)).all()
    if not rows:
        return None, 0
    documents = sorted({row.document_id for row in rows})
    # In one order, as everybody locks.
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
    """By document the adopted version to be indexed, where the newest is one and says something new."""
    columns = (
        DocumentVersion.id, DocumentVersion.document_id, DocumentVersion.state, DocumentVersion.fetched_at,
        DocumentVersion.content_hash,
    )  # fmt: skip
    versions: dict[int, list[Any]] = defaultdict(list)
    for row in session.execute(sa.select(*columns).where(DocumentVersion.document_id.in_(documents))):
        versions[row.document_id].append(row)
    found = {}
    for document_id, rows in versions.items():
        newest = max(rows, key=lambda row: (row.fetched_at, row.id))
        searched = {row.content_hash for row in rows if row.state in ("current", "received")}
        if newest.state == ADOPTED and newest.content_hash not in searched:
            found[document_id] = newest.id
    return found


def _places(session: Session, olders: Sequence[Older], tenant: str) -> list[int | _Free]:
    """For each the id of the version that it is, or the id that it may have."""
    ids = [older.id for older in olders if 0 < older.id <= LARGEST_ID]
    held = {row.id: row for row in session.execute(_LOOK.where(DocumentVersion.id.in_(ids)))}
    return [_place(session, older, held.get(older.id), tenant) for older in olders]


def _place(session: Session, older: Older, held: Any, tenant: str) -> int | _Free:
    if held is None and 0 < older.id <= LARGEST_ID:
        return _Free(older.id)
    if held is not None and held.tenant == tenant and _is_it(held, older):
        return older.id
    document_id = known_id(session, older.about, tenant=tenant)
    versions = _LOOK.where(DocumentVersion.document_id == document_id).order_by(DocumentVersion.id)
    return next((int(row.id) for row in session.execute(versions) if _is_it(row, older)), _Free(None))


def _is_it(row: Any, older: Older) -> bool:
    """The body is not compared: the other system may have written it anew."""
    said = (row.fields.get(_MARK), row.url, row.crawl_session)
    return said == (
        older.id,
        clean_line(older.about.url, LONGEST_URL),
        clean_line(older.content.crawl_session, 255),
    )
