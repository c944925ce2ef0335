"""Scopes of a key: each grants something; a key without scopes may do nothing.

read             read everything of the tenant
write            change and start everything of the tenant
admin            read and write, and manage the tenant's keys and audit log
operator         admin, and manage what tenants share: tenants, their limits, queues, workers
kind:NAME        start and manage jobs of this kind, unless it is for operators; `kind:shop.*`: all with that prefix
collection:NAME  read, write and search the documents of this collection
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from app.core.errors import InvalidInput

READ, WRITE, ADMIN, OPERATOR = "read", "write", "admin", "operator"
ALL = frozenset({READ, WRITE, ADMIN, OPERATOR})
MAX_SCOPES = 100
_NAMED = re.compile(r"(kind|collection):[A-Za-z0-9][A-Za-z0-9._-]{0,99}\*?", re.ASCII)


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """Return the scopes sorted, without repetitions. Raises InvalidInput for an unknown scope, or none at all."""
    result = sorted(set(scopes))
    for scope in result:
        if scope not in ALL and not _NAMED.fullmatch(scope):
            known = "read, write, admin, operator, kind:NAME or collection:NAME"
            raise InvalidInput(f"scopes: {scope!r} is unknown; expected {known}", code="scope")
    if not 0 < len(result) <= MAX_SCOPES:
        raise InvalidInput(f"scopes: 1 to {MAX_SCOPES} are required", code="scope")
    return result


def allows(granted: Collection[str], scope: str) -> bool:
    """Return True if these grants include read, write, admin or operator."""
    if scope in granted or OPERATOR in granted:
        return True
    return ADMIN in granted and scope != OPERATOR


def names(granted: Collection[str], what: str) -> tuple[str, ...]:
    """Return the names granted individually: `names(scopes, "kind")`."""
    return tuple(scope.partition(":")[2] for scope in granted if scope.startswith(what + ":"))


def among(name: str, patterns: Iterable[str]) -> bool:
    """Return True if the name matches a pattern; `shop.*` matches all names with the prefix `shop.`."""
    return any(name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in patterns)


def may_grant(granted: Collection[str], scopes: Iterable[str]) -> bool:
    """Return True if an administrator with these grants may grant the scopes: all except `operator`, unless it is
    granted."""
    return all(scope != OPERATOR or OPERATOR in granted for scope in scopes) and allows(granted, ADMIN)
