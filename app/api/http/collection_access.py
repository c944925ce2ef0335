"""Collections whose documents a key for single collections may read or write."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.api.http.auth import Identity
from app.core.errors import NotAllowed, NotFound
from app.documents import collections
from app.tenants import scopes


def reachable_collections(session: Session, caller: Identity, scope: str) -> tuple[int, ...] | None:
    """Return the ids of the collections whose documents the caller may read or write; None means all."""
    names = caller.collections(scope)
    return None if names is None else collections.find_reached(session, caller.tenant, names)


def select_collections(
    session: Session, caller: Identity, scope: str, names: tuple[str, ...]
) -> tuple[int, ...] | None:
    """Return the ids of the named collections, or all reachable ones without names.

    Raises NotFound for a collection that the caller may not reach.
    """
    reachable = reachable_collections(session, caller, scope)
    if not names:
        return reachable
    selected = collections.ids(session, caller.tenant, names)
    if reachable is not None and not set(selected) <= set(reachable):
        raise NotFound("Collection not found", code="collection_not_found")
    return selected


def target_collection(caller: Identity, name: str | None) -> str | None:
    """Return the collection of a new document. Raises NotAllowed where the caller may not write to it."""
    writable = caller.collections(scopes.WRITE)
    if writable is None:
        return name
    if name is None and len(writable) == 1 and not writable[0].endswith("*"):
        return writable[0]
    if name is None:
        raise NotAllowed("this key is limited to some collections: name one in `collection`", code="scope_missing")
    if not scopes.among(name, writable):
        raise NotAllowed(f"this key may not write to the collection {name}", code="scope_missing")
    return name
