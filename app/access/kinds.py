"""Kinds of job that a caller may start, and those whose jobs it may change."""

from __future__ import annotations

from app.core.errors import InvalidInput, NotAllowed
from app.jobs.definition import Job, definition, kinds
from app.jobs.models import ScheduleRow
from app.tenants import scopes
from app.tenants.identity import Identity


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
    """Return True if the caller has the scope of the definition, or one for this kind.

    A scope for a kind does not replace `operator`: the administrator of a tenant can grant it.
    """
    if kind.open_to is None:
        return False
    if caller.may(kind.open_to):
        return True
    return kind.open_to != scopes.OPERATOR and scopes.among(kind.kind, scopes.names(caller.scopes, "kind"))


def require_manageable_kind(caller: Identity, name: str) -> None:
    """Raises NotAllowed if jobs of this kind are reserved for administrators or operators, unless the caller is one."""
    if not _may_manage(caller, definition(name)):
        raise NotAllowed(f"this key may not change jobs of kind {name}", code="scope_missing")


def require_payload_access(caller: Identity, name: str) -> None:
    """Raises NotAllowed if the caller may not choose the payload of jobs of this kind: it may not start them either."""
    if not caller.may(scopes.OPERATOR):
        require_startable_kind(caller, name)


def unmanageable_kinds(caller: Identity) -> tuple[str, ...]:
    """Return the kinds whose jobs the caller may not change."""
    return tuple(name for name in kinds() if not _may_manage(caller, definition(name)))


def _may_manage(caller: Identity, kind: type[Job] | None) -> bool:
    is_reserved = kind is not None and kind.open_to in (scopes.ADMIN, scopes.OPERATOR)
    return kind is None or not is_reserved or may_start(caller, kind)


def require_schedule_access(caller: Identity, row: ScheduleRow) -> None:
    """Raises NotAllowed unless the caller may start jobs of the schedule's kind.

    A schedule that the program declares also needs the scope admin. Operators may change every schedule.
    """
    if caller.may(scopes.OPERATOR):
        return
    if row.in_code and not caller.may(scopes.ADMIN):
        message = f"the program declares schedule {row.name!r}; this key needs the scope 'admin'"
        raise NotAllowed(message, code="scope_missing")
    if definition(row.kind) is not None:
        require_startable_kind(caller, row.kind)
