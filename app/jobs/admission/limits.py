"""Limits on queued jobs: a queue, a kind or a tenant may be paused, capped or weighted.

They are rows, so that a pause survives Redis and every process. The claim enforces them, admission follows them;
`ledger.limit_commands` changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, get_args
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock
from app.jobs.models import JobRow, LimitRow

Scope = Literal["queue", "kind", "tenant"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Subject = tuple[str, str]  # scope, name

# Admission may use limits of this age: the claim reads them again and decides.
MAX_CACHE_AGE_S = 0.25

_COLUMNS = (
    LimitRow.scope,
    LimitRow.name,
    LimitRow.paused_at,
    LimitRow.paused_by,
    LimitRow.pause_reason,
    LimitRow.running_cap,
    LimitRow.declared_cap,
    LimitRow.weight,
)


class Limit(NamedTuple):
    """The limit of one queue, kind or tenant; one without a row limits nothing."""

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
        """The number of jobs that may run at once: set by a person, else declared by the definition."""
        return self.declared_cap if self.running_cap is None else self.running_cap

    @property
    def is_unlimited(self) -> bool:
        return not self.paused and self.cap is None


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits at one moment."""

    known: Mapping[Subject, Limit] = field(default_factory=dict)
    read_at: float = 0.0

    def applying(self, queue: str, kind: str, tenant: str) -> list[Limit]:
        """Limits that pause or cap such a job; none for most."""
        if not self.known:
            return []
        limits = (self.known.get(subject) for subject in subjects(queue, kind, tenant))
        return [limit for limit in limits if limit is not None and not limit.is_unlimited]

    def is_paused(self, scope: Scope, name: str) -> bool:
        limit = self.known.get((scope, name))
        return limit is not None and limit.paused

    def cap(self, scope: Scope, name: str) -> int | None:
        limit = self.known.get((scope, name))
        return None if limit is None else limit.cap

    def weight(self, tenant: str) -> int:
        limit = self.known.get(("tenant", tenant))
        return 1 if limit is None else limit.weight


def subjects(queue: str, kind: str, tenant: str) -> tuple[Subject, Subject, Subject]:
    return ("queue", queue), ("kind", kind), ("tenant", tenant)


# By engine: one process may read several databases.
_cached: WeakKeyDictionary[sa.Engine, Limits] = WeakKeyDictionary()


def read(session: Session) -> Limits:
    """Return all limits as this transaction sees them."""
    limits = {limit[:2]: limit for limit in fetch(session)}
    return Limits(limits, clock.monotonic())


def read_cached(session: Session) -> Limits:
    """Like `read`, but up to MAX_CACHE_AGE_S old."""
    engine = session.get_bind().engine
    limits = _cached.get(engine)
    if limits is None or clock.monotonic() - limits.read_at > MAX_CACHE_AGE_S:
        limits = _cached[engine] = read(session)
    return limits


def clear_cache() -> None:
    _cached.clear()


def find(session: Session, scope: Scope, name: str) -> Limit:
    limits = fetch(session, LimitRow.scope == scope, LimitRow.name == name)
    return limits[0] if limits else Limit(scope, name)


def is_known(session: Session, scope: Scope, name: str) -> bool:
    """Return True if this limit was ever set, or declared by a worker that knows its kind."""
    return bool(fetch(session, LimitRow.scope == scope, LimitRow.name == name))


def lock_narrow(session: Session, subjects: Iterable[Subject]) -> list[Limit]:
    """Lock those limits of the subjects that pause or cap, in the order of their names."""
    among = sa.tuple_(LimitRow.scope, LimitRow.name).in_(list(subjects))
    is_narrow = sa.or_(
        LimitRow.paused_at.is_not(None), LimitRow.running_cap.is_not(None), LimitRow.declared_cap.is_not(None)
    )
    return fetch(session, among, is_narrow, lock=True)


def count_running(session: Session, scope: str, name: str) -> int:
    """Return how many jobs of a kind, a tenant or a queue run."""
    column = getattr(JobRow, scope)
    query = sa.select(sa.func.count()).where(JobRow.state == "running", JobRow.worker_id.is_not(None), column == name)
    return int(session.scalar(query) or 0)


class BlockingLimit(NamedTuple):
    """A limit that keeps a queued job from starting; `running` is the count of running jobs where a cap does."""

    limit: Limit
    running: int | None = None


def blocking(session: Session, row: JobRow) -> list[BlockingLimit]:
    """Return the limits that keep this job from starting now, pauses first."""
    limits = [find(session, scope, name) for scope, name in subjects(row.queue, row.kind, row.tenant)]  # type: ignore[arg-type]
    paused = [BlockingLimit(limit) for limit in limits if limit.paused]
    capped = [
        BlockingLimit(limit, count_running(session, limit.scope, limit.name))
        for limit in limits
        if limit.cap is not None
    ]
    full = [block for block in capped if block.running is not None and block.running >= (block.limit.cap or 0)]
    return paused + full


def fetch(session: Session, *conditions: sa.ColumnElement[bool], lock: bool = False) -> list[Limit]:
    """Return the limits that fulfil the conditions, in the order of scope and name."""
    query = sa.select(*_COLUMNS).where(*conditions).order_by(LimitRow.scope, LimitRow.name)
    rows = session.execute(query.with_for_update() if lock else query)
    return [Limit(row.scope, row.name, row.paused_at is not None, *row[2:]) for row in rows]
