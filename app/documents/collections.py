"""Collections: a case, a project, a site; a document belongs to one or to none, and a key may reach only some."""

from __future__ import annotations

import re
from collections.abc import Collection as Some
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.clock import moment
from app.core.errors import CollectionNotFound, Conflict, InvalidInput
from app.documents.models import Collection, Document
from app.jobs.models import JobRow

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def create(session: Session, tenant: str, name: str, *, title: str = "", description: str = "") -> Collection:
    """Raises InvalidInput for what is no name, Conflict for one that is taken."""
    now = clock.now()
    row = Collection(
        tenant=tenant, name=checked(name), title=title, description=description, created_at=now, updated_at=now
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise _taken(name) from None
    return row


def checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        allowed = "1 to 100 of letters, digits, dot, dash, underscore; first a letter or digit"
        raise InvalidInput(f"collection: {allowed}", code="collection_name")
    return name


def find(session: Session, tenant: str, name: str, *, lock: bool = False) -> Collection:
    """Raises NotFound, also for another tenant's."""
    query = sa.select(Collection).where(Collection.tenant == tenant, Collection.name == name)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none() if _NAME.fullmatch(name) else None
    if row is None:
        raise CollectionNotFound("Collection not found")
    return row


def ids(session: Session, tenant: str, names: Iterable[str]) -> tuple[int, ...]:
    """The ids of the collections with these names. Raises NotFound for one that is not there."""
    return tuple(find(session, tenant, name).id for name in dict.fromkeys(names))


def names(session: Session, wanted: Iterable[int]) -> dict[int, str]:
    """The names of the collections with these ids."""
    query = sa.select(Collection.id, Collection.name).where(Collection.id.in_(list(wanted)))
    return {row.id: row.name for row in session.execute(query)}


def reached(session: Session, tenant: str, patterns: Some[str]) -> tuple[int, ...]:
    """The ids of the collections that these words of scopes name; `site.*` is all whose names begin so."""
    exact = [pattern for pattern in patterns if not pattern.endswith("*")]
    begun = [pattern[:-1] for pattern in patterns if pattern.endswith("*")]
    fits = [Collection.name.in_(exact), *(Collection.name.startswith(start, autoescape=True) for start in begun)]
    query = sa.select(Collection.id, Collection.name).where(Collection.tenant == tenant, sa.or_(*fits))
    # SQLite's LIKE does not tell cases apart; scopes do.
    return tuple(row.id for row in session.execute(query) if row.name in exact or row.name.startswith(tuple(begun)))


def has_job(session: Session, job: JobRow, patterns: Some[str]) -> bool:
    """Whether the job is about a document in one of these collections."""
    query = sa.select(Document.collection_id).where(Document.tenant == job.tenant, Document.id == job.document_id)
    return session.scalar(query) in reached(session, job.tenant, patterns)


def change(session: Session, tenant: str, name: str, changes: dict[str, Any]) -> Collection:
    """The collection renamed or described anew. Raises NotFound, InvalidInput, Conflict.

    Keys name a collection by its name: after a rename those that named the old one reach it no more.
    """
    row = find(session, tenant, name, lock=True)
    if changes.get("name") is not None:
        checked(changes["name"])
    try:
        with session.begin_nested():
            for field, value in changes.items():
                setattr(row, field, value)
            row.updated_at = clock.now()
    except IntegrityError:
        raise _taken(changes["name"]) from None
    return row


def remove(session: Session, tenant: str, name: str) -> Collection:
    """Forget an empty collection. Raises NotFound, Conflict where documents are in it."""
    row = find(session, tenant, name, lock=True)
    held = sa.select(Document.id).where(Document.tenant == tenant, Document.collection_id == row.id)
    if session.scalar(held.limit(1)) is not None:
        raise Conflict(
            "documents are in this collection: say documents=keep or documents=delete", code="collection_not_empty"
        )
    session.delete(row)
    return row


def list_collections(session: Session, tenant: str, *, only: Some[int] | None, after: str | None, limit: int) -> Any:
    """By name; `only` these ids, where not None."""
    query = sa.select(Collection).where(Collection.tenant == tenant).order_by(Collection.name).limit(limit)
    if only is not None:
        query = query.where(Collection.id.in_(only))
    return list(session.scalars(query if after is None else query.where(Collection.name > after)))


def counts(session: Session, tenant: str, wanted: Some[int]) -> dict[int, tuple[int, int, int]]:
    """Of each collection its documents, those that can be searched, and their chunks; nothing of an empty one."""
    query = (
        sa.select(
            Document.collection_id,
            sa.func.count(),
            sa.func.count(Document.version_id),
            sa.func.coalesce(sa.func.sum(Document.chunk_count), 0),
        )
        .where(Document.tenant == tenant, Document.collection_id.in_(wanted))
        .group_by(Document.collection_id)
    )
    return {int(row[0] or 0): (row[1], row[2], int(row[3])) for row in session.execute(query)}


def views(session: Session, tenant: str, rows: Iterable[Collection]) -> list[dict[str, Any]]:
    """Collections as people see them, with what is in each now."""
    rows = list(rows)
    found = counts(session, tenant, [row.id for row in rows])
    return [_view(row, *found.get(row.id, (0, 0, 0))) for row in rows]


def _view(row: Collection, documents: int, indexed: int, chunks: int) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "description": row.description,
        "documents": documents,
        "documents_indexed": indexed,
        "chunks": chunks,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


def _taken(name: str) -> Conflict:
    return Conflict(f"Collection {name} is there already", code="collection_exists")
