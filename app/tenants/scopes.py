"""What a key may do: plain words, each a grant; without one of them nothing is allowed.

read             look at everything of the tenant
write            change and start everything of the tenant
admin            all that, and its keys and audit log
operator         all that, and what is everybody's: tenants, their limits, queues, workers
kind:NAME        start jobs of this kind and deal with them; `kind:shop.*` grants all whose names begin so
collection:NAME  read, write and search the documents of this collection
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from app.core.errors import InvalidInput

READ, WRITE, ADMIN, OPERATOR = "read", "write", "admin", "operator"
ALL = frozenset({READ, WRITE, ADMIN, OPERATOR})
MOST_SCOPES = 100
_NAMED = re.compile(r"(kind|collection):[A-Za-z0-9][A-Za-z0-9._-]{0,99}\*?", re.ASCII)


def checked(scopes: Iterable[str]) -> list[str]:
    """The scopes, each once, in order. Raises InvalidInput for an unknown one, or none at all."""
    wanted = sorted(set(scopes))
    for scope in wanted:
        if scope not in ALL and not _NAMED.fullmatch(scope):
            known = "read, write, admin, operator, kind:NAME or collection:NAME"
            raise InvalidInput(f"scopes: {scope!r} is none of {known}", code="scope")
    if not 0 < len(wanted) <= MOST_SCOPES:
        raise InvalidInput(f"scopes: give one to {MOST_SCOPES}", code="scope")
    return wanted


def allows(granted: Collection[str], scope: str) -> bool:
    """Whether these grants hold read, write, admin or operator."""
    if scope in granted or OPERATOR in granted:
        return True
    return ADMIN in granted and scope != OPERATOR


def names(granted: Collection[str], what: str) -> tuple[str, ...]:
    """The names granted one by one: `names(scopes, "kind")`."""
    return tuple(scope.partition(":")[2] for scope in granted if scope.startswith(what + ":"))


def among(name: str, patterns: Iterable[str]) -> bool:
    """Whether the name is one of these; `shop.*` stands for all that begin with `shop.`."""
    return any(name == given or (given.endswith("*") and name.startswith(given[:-1])) for given in patterns)


def may_grant(granted: Collection[str], wanted: Iterable[str]) -> bool:
    """Nobody gives away what is not theirs: an administrator everything but `operator`."""
    return all(scope != OPERATOR or OPERATOR in granted for scope in wanted) and allows(granted, ADMIN)
