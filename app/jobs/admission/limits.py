"""What stands between a queued job and its start: a queue, a kind or a tenant may be paused, capped or weighed.

Rows, so that a pause survives Redis and every process; the claim looks at them, admission follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime, after_commit
from app.core.errors import InvalidInput
from app.jobs.admission import push
from app.jobs.models import GateRow, JobRow

Scope = Literal["queue", "kind", "tenant"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Subject = tuple[str, str]  # scope, name

LARGEST_CAP = 100_000
LARGEST_WEIGHT = 1000
# An admission may go by gates that were read so long ago: the claim, which reads them anew, has the last word.
BELIEF_S = 0.25

_COLUMNS = (
    GateRow.scope,
    GateRow.name,
    GateRow.paused_at,
    GateRow.paused_by,
    GateRow.pause_reason,
    GateRow.running_cap,
    GateRow.declared_cap,
    GateRow.weight,
)


class Gate(NamedTuple):
    """One gate as it stands; a subject without a row has an open one."""

    scope: str
    name: str
    paused: bool = False
    paused_at: datetime | None = None
    paused_by: str | None = None
    reason: str | None = None
    running_cap: int | None = None
    declared_cap: int | None = None
    weight: int = 1

    @property
    def cap(self) -> int | None:
        """How many may run at once: what a person said, else what the definition says."""
        return self.declared_cap if self.running_cap is None else self.running_cap

    @property
    def is_open(self) -> bool:
        return not self.paused and self.cap is None


@dataclass(frozen=True, slots=True)
class Gates:
    """All gates at one moment."""

    known: Mapping[Subject, Gate] = field(default_factory=dict)
    read_at: float = 0.0

    def before(self, queue: str, kind: str, tenant: str) -> list[Gate]:
        """Those that are shut or capped before such a job; none for most."""
        if not self.known:
            return []
        found = (self.known.get(subject) for subject in subjects(queue, kind, tenant))
        return [gate for gate in found if gate is not None and not gate.is_open]

    def is_paused(self, scope: Scope, name: str) -> bool:
        gate = self.known.get((scope, name))
        return gate is not None and gate.paused

    def cap(self, scope: Scope, name: str) -> int | None:
        gate = self.known.get((scope, name))
        return None if gate is None else gate.cap

    def weight(self, tenant: str) -> int:
        gate = self.known.get(("tenant", tenant))
        return 1 if gate is None else gate.weight


def subjects(queue: str, kind: str, tenant: str) -> tuple[Subject, Subject, Subject]:
    return ("queue", queue), ("kind", kind), ("tenant", tenant)


# By engine: one process may look into several databases.
_believed: WeakKeyDictionary[sa.Engine, Gates] = WeakKeyDictionary()


def read(session: Session) -> Gates:
    """All gates, as this transaction sees them."""
    gates = {gate[:2]: gate for gate in _fetch(session)}
    return Gates(gates, clock.monotonic())


def believed(session: Session) -> Gates:
    """The same, up to a quarter of a second old."""
    engine = session.get_bind().engine
    gates = _believed.get(engine)
    if gates is None or clock.monotonic() - gates.read_at > BELIEF_S:
        gates = _believed[engine] = read(session)
    return gates


def forget() -> None:
    """Believe nothing any more."""
    _believed.clear()


def find(session: Session, scope: Scope, name: str) -> Gate:
    found = _fetch(session, GateRow.scope == scope, GateRow.name == name)
    return found[0] if found else Gate(scope, name)


def is_known(session: Session, scope: Scope, name: str) -> bool:
    """Whether this gate was ever set, or declared by a worker that knows its kind."""
    return bool(_fetch(session, GateRow.scope == scope, GateRow.name == name))


def locked(session: Session, wanted: Iterable[Subject]) -> list[Gate]:
    """Those of the subjects' gates that are shut or capped, locked for this transaction in the order of their names."""
    among = sa.tuple_(GateRow.scope, GateRow.name).in_(list(wanted))
    narrow = sa.or_(GateRow.paused_at.is_not(None), GateRow.running_cap.is_not(None), GateRow.declared_cap.is_not(None))
    return _fetch(session, among, narrow, lock=True)


def running(session: Session, scope: str, name: str) -> int:
    """How many jobs of a kind, a tenant or a queue run."""
    column = getattr(JobRow, scope)
    query = sa.select(sa.func.count()).where(JobRow.state == "running", JobRow.worker_id.is_not(None), column == name)
    return int(session.scalar(query) or 0)


def pause(session: Session, scope: Scope, name: str, *, by: str | None = None, reason: str | None = None) -> Gate:
    """Start no more of these jobs until `resume`; what runs goes on. Its admitted ids are handed back.

    A second pause keeps the first one's time.
    """
    _put(
        session,
        scope,
        name,
        {"paused_at": clock.now(), "paused_by": by, "pause_reason": reason},
        "paused_at = COALESCE(gate.paused_at, excluded.paused_at), paused_by = excluded.paused_by, "
        "pause_reason = excluded.pause_reason",
    )
    # SKIP LOCKED: a claim that is under way meets the gate by itself.
    admitted = (
        sa.select(JobRow.id)
        .where(JobRow.state == "queued", JobRow.admitted_at.is_not(None), getattr(JobRow, scope) == name)
        .order_by(JobRow.id)
        .with_for_update(skip_locked=True)
    )
    sql.row_count(session, sa.update(JobRow).where(JobRow.id.in_(admitted)).values(admitted_at=None))
    return find(session, scope, name)


def resume(session: Session, scope: Scope, name: str) -> Gate:
    """Let them start again, in their order."""
    shut = find(session, scope, name)
    if shut.paused:
        _put(
            session,
            scope,
            name,
            {"paused_at": None, "paused_by": None, "pause_reason": None},
            "paused_at = NULL, paused_by = NULL, pause_reason = NULL",
        )
        push.wake_relay_after_commit(session)
    return find(session, scope, name)


def set_limits(session: Session, scope: Scope, name: str, *, running_cap: int | None, weight: int = 1) -> Gate:
    """How many of these jobs run at once (None: as the definition says, else as many as there is room for), and how
    big a tenant's share is beside others.

    Raises InvalidInput for a cap or a weight that is none. What runs beyond a lowered cap goes on.
    """
    if running_cap is not None and not 1 <= running_cap <= LARGEST_CAP:
        raise InvalidInput(f"a cap is between 1 and {LARGEST_CAP}; to let none start, pause", code="running_cap")
    if not 1 <= weight <= LARGEST_WEIGHT:
        raise InvalidInput(f"a weight is between 1 and {LARGEST_WEIGHT}", code="weight")
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
    """What the definitions of these kinds say of how many may run at once; written where it differs."""
    known = {gate.name: gate.declared_cap for gate in _fetch(session, GateRow.scope == "kind")}
    for kind, cap in sorted(caps.items()):
        if known.get(kind) != cap:
            _put(session, "kind", kind, {"declared_cap": cap}, "declared_cap = excluded.declared_cap")


class Hold(NamedTuple):
    """A gate that keeps a queued job from starting, with how many run behind it where it is a cap that does."""

    gate: Gate
    running: int | None = None


def holding(session: Session, row: JobRow) -> list[Hold]:
    """The gates that keep this job from starting now, pauses first; none where it may."""
    gates = [find(session, scope, name) for scope, name in subjects(row.queue, row.kind, row.tenant)]  # type: ignore[arg-type]
    paused = [Hold(gate) for gate in gates if gate.paused]
    capped = [Hold(gate, running(session, gate.scope, gate.name)) for gate in gates if gate.cap is not None]
    full = [hold for hold in capped if hold.running is not None and hold.running >= (hold.gate.cap or 0)]
    return paused + full


def _fetch(session: Session, *conditions: sa.ColumnElement[bool], lock: bool = False) -> list[Gate]:
    query = sa.select(*_COLUMNS).where(*conditions).order_by(GateRow.scope, GateRow.name)
    rows = session.execute(query.with_for_update() if lock else query)
    return [Gate(row.scope, row.name, row.paused_at is not None, *row[2:]) for row in rows]


def _put(session: Session, scope: Scope, name: str, values: dict[str, Any], changes: str) -> None:
    whole: dict[str, Any] = {
        "scope": scope, "name": name, "paused_at": None, "paused_by": None, "pause_reason": None,
        "running_cap": None, "declared_cap": None, "weight": 1,
    } | values  # fmt: skip
    places = ", ".join(f":{column}" for column in whole)
    session.execute(
        sa.text(
            f"INSERT INTO gate ({', '.join(whole)}) VALUES ({places}) ON CONFLICT (scope, name) DO UPDATE SET {changes}"
        ).bindparams(sa.bindparam("paused_at", type_=UtcDateTime())),
        whole,
    )
    after_commit(session, "gates", lambda: forget)
