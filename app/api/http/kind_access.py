"""Kinds of job that a caller may start."""

from __future__ import annotations

from app.api.http.auth import Identity
from app.core.errors import InvalidInput, NotAllowed
from app.jobs.definition import Job, definition
from app.tenants import scopes


def require_startable_kind(caller: Identity, name: str) -> type[Job]:
    """Return the kind. Raises InvalidInput if it is unknown, NotAllowed if the caller may not start it."""
    kind = definition(name)
    if kind is None:
        raise InvalidInput(f"kind {name!r} is unknown; GET /api/kinds lists the known ones", code="kind_unknown")
    if kind.open_to is None:
        raise NotAllowed(f"only the program starts jobs of kind {name}", code="kind_closed")
    if not may_start(caller, kind):
        raise NotAllowed(f"this key may not start jobs of kind {name}", code="scope_missing")
    return kind


def may_start(caller: Identity, kind: type[Job]) -> bool:
    """Return True if the caller has the scope of the definition, or one for this kind."""
    if kind.open_to is None:
        return False
    return caller.may(kind.open_to) or scopes.among(kind.kind, scopes.names(caller.scopes, "kind"))
