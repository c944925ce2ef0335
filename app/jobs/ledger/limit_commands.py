"""Change the limits of a queue, a kind or a tenant: pause, resume, cap, weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import UtcDateTime, after_commit
from app.core.errors import InvalidInput
from app.jobs.admission import push
from app.jobs.admission.limits import Limit, Scope, clear_cache, fetch, find
from app.jobs.ledger import admissions
from app.jobs.models import JobRow, LimitRow

MAX_CAP = 100_000
MAX_WEIGHT = 1000


def pause(session: Session, scope: Scope, name: str, *, by: str | None = None, reason: str | None = None) -> Limit:
    """Start no more of these jobs until `resume`; running jobs go on. Admitted jobs leave the window.

    A second pause keeps the time of the first.
    """
    _put(
        session,
        scope,
        name,
        {"paused_at": clock.now(), "paused_by": by, "pause_reason": reason},
        "paused_at = COALESCE(gate.paused_at, excluded.paused_at), paused_by = excluded.paused_by, "
        "pause_reason = excluded.pause_reason",
    )
    admissions.withdraw(session, getattr(JobRow, scope) == name)
    return find(session, scope, name)


def resume(session: Session, scope: Scope, name: str) -> Limit:
    """Let these jobs start again, in their order."""
    if find(session, scope, name).paused:
        _put(
            session,
            scope,
            name,
            {"paused_at": None, "paused_by": None, "pause_reason": None},
            "paused_at = NULL, paused_by = NULL, pause_reason = NULL",
        )
        push.wake_relay_after_commit(session)
    return find(session, scope, name)


def set_limits(session: Session, scope: Scope, name: str, *, running_cap: int | None, weight: int = 1) -> Limit:
    """Set how many of these jobs run at once, and a tenant's share relative to others.

    A cap of None means the definition's, else no cap. Jobs that run beyond a lowered cap go on.
    Raises InvalidInput for a cap or a weight out of range.
    """
    if running_cap is not None and not 1 <= running_cap <= MAX_CAP:
        raise InvalidInput(f"a cap is between 1 and {MAX_CAP}; to let none start, pause", code="running_cap")
    if not 1 <= weight <= MAX_WEIGHT:
        raise InvalidInput(f"a weight is between 1 and {MAX_WEIGHT}", code="weight")
    _put(
        session,
        scope,
        name,
        {"running_cap": running_cap, "weight": weight},
        "running_cap = excluded.running_cap, weight = excluded.weight",
    )
    push.wake_relay_after_commit(session)
    return find(session, scope, name)


def declare(session: Session, caps: Mapping[str, int | None]) -> None:
    """Write the caps that the definitions of these kinds declare, where they differ."""
    declared = {limit.name: limit.declared_cap for limit in fetch(session, LimitRow.scope == "kind")}
    for kind, cap in sorted(caps.items()):
        if declared.get(kind) != cap:
            _put(session, "kind", kind, {"declared_cap": cap}, "declared_cap = excluded.declared_cap")


def _put(session: Session, scope: Scope, name: str, values: dict[str, Any], changes: str) -> None:
    row: dict[str, Any] = {
        "scope": scope, "name": name, "paused_at": None, "paused_by": None, "pause_reason": None,
        "running_cap": None, "declared_cap": None, "weight": 1,
    } | values  # fmt: skip
    places = ", ".join(f":{column}" for column in row)
    session.execute(
        sa.text(
            f"INSERT INTO gate ({', '.join(row)}) VALUES ({places}) ON CONFLICT (scope, name) DO UPDATE SET {changes}"
        ).bindparams(sa.bindparam("paused_at", type_=UtcDateTime())),
        row,
    )
    after_commit(session, "limits", lambda: clear_cache)
