"""Collections: a case, a project, a site. A document belongs to one collection or none; a key may reach only some."""

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
    """Create a collection. Raises InvalidInput for an invalid name, Conflict for a name that is taken."""
    now = clock.now()
    row = Collection(
        tenant=tenant, name=check_name(name), title=title, description=description, created_at=now, updated_at=now
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise _taken(name) from None
    return row


def check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        allowed = "1 to 100 of letters, digits, dot, dash, underscore; first a letter or digit"
        raise InvalidInput(f"collection: {allowed}", code="collection_name")
    return name


def find(session: Session, tenant: str, name: str, *, lock: bool = False) -> Collection:
    """Return the tenant's collection. Raises NotFound, also for a collection of another tenant."""
    query = sa.select(Collection).where(Collection.tenant == tenant, Collection.name == name)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none() if _NAME.fullmatch(name) else None
    if row is None:
        raise CollectionNotFound("Collection not found")
    return row


def ids(session: Session, tenant: str, names: Iterable[str]) -> tuple[int, ...]:
    """Return the ids of the collections with these names. Raises NotFound for an unknown name."""
    return tuple(find(session, tenant, name).id for name in dict.fromkeys(names))


def names(session: Session, ids: Iterable[int]) -> dict[int, str]:
    """Return the names of the collections with these ids."""
    query = sa.select(Collection.id, Collection.name).where(Collection.id.in_(list(ids)))
    return {row.id: row.name for row in session.execute(query)}


def find_reached(session: Session, tenant: str, patterns: Some[str]) -> tuple[int, ...]:
    """Return the ids of the collections that these scope patterns name; `site.*` means every name with that prefix."""
    exact = [pattern for pattern in patterns if not pattern.endswith("*")]
    begun = [pattern[:-1] for pattern in patterns if pattern.endswith("*")]
    fits = [Collection.name.in_(exact), *(Collection.name.startswith(start, autoescape=True) for start in begun)]
    query = sa.select(Collection.id, Collection.name).where(Collection.tenant == tenant, sa.or_(*fits))
    # SQLite's LIKE ignores case; scopes do not.
    return tuple(row.id for row in session.execute(query) if row.name in exact or row.name.startswith(tuple(begun)))


def has_job(session: Session, job: JobRow, patterns: Some[str]) -> bool:
    """Return True if the job is about a document in one of these collections."""
    query = sa.select(Document.collection_id).where(Document.tenant == job.tenant, Document.id == job.document_id)
    return session.scalar(query) in find_reached(session, job.tenant, patterns)


def change(session: Session, tenant: str, name: str, changes: dict[str, Any]) -> Collection:
    """Rename or describe the collection. Raises NotFound, InvalidInput, Conflict.

    Keys refer to a collection by name: after a rename, keys for the old name no longer reach it.
    """
    row = find(session, tenant, name, lock=True)
    if changes.get("name") is not None:
        check_name(changes["name"])
    try:
        with session.begin_nested():
            for field, value in changes.items():
                setattr(row, field, value)
            row.updated_at = clock.now()
    except IntegrityError:
        raise _taken(changes["name"]) from None
    return row


def remove(session: Session, tenant: str, name: str) -> Collection:
    """Delete an empty collection. Raises NotFound, or Conflict if it contains documents."""
    row = find(session, tenant, name, lock=True)
    held = sa.select(Document.id).where(Document.tenant == tenant, Document.collection_id == row.id)
    if session.scalar(held.limit(1)) is not None:
        raise Conflict(
            "the collection contains documents: add documents=keep or documents=delete", code="collection_not_empty"
        )
    session.delete(row)
    return row


def list_collections(session: Session, tenant: str, *, only: Some[int] | None, after: str | None, limit: int) -> Any:
    """List collections by name; `only` limits them to these ids."""
    query = sa.select(Collection).where(Collection.tenant == tenant).order_by(Collection.name).limit(limit)
    if only is not None:
        query = query.where(Collection.id.in_(only))
    return list(session.scalars(query if after is None else query.where(Collection.name > after)))


def count_contents(session: Session, tenant: str, ids: Some[int]) -> dict[int, tuple[int, int, int]]:
    """Count documents, searchable documents and chunks of each collection; an empty collection is left out."""
    query = (
        sa.select(
            Document.collection_id,
            sa.func.count(),
            sa.func.count(Document.version_id),
            sa.func.coalesce(sa.func.sum(Document.chunk_count), 0),
        )
        .where(Document.tenant == tenant, Document.collection_id.in_(ids))
        .group_by(Document.collection_id)
    )
    return {int(row[0] or 0): (row[1], row[2], int(row[3])) for row in session.execute(query)}


def views(session: Session, tenant: str, rows: Iterable[Collection]) -> list[dict[str, Any]]:
    """Collections as the API shows them, with their current counts."""
    rows = list(rows)
    by_id = count_contents(session, tenant, [row.id for row in rows])
    return [_view(row, *by_id.get(row.id, (0, 0, 0))) for row in rows]


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
    return Conflict(f"Collection {name} exists already", code="collection_exists")
