"""The fair order in which relays admit: priority first, then tenants by weight, of each the oldest jobs first.

A tenant's share counts its running jobs and its jobs in the window. A tenant that had none comes first, one that
holds many waits; no turns are stored.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core import clock, sql
from app.core.db import UtcDateTime
from app.jobs.admission import limits
from app.jobs.admission.limits import Limits, Scope
from app.jobs.admission.push import QueuedRef
from app.jobs.ledger import admissions
from app.jobs.models import JOB, JobRow
from app.jobs.queues import QUEUES

_UNFED = "state = 'queued' AND admitted_at IS NULL AND queue = :queue"
# Tenants read in one admission; the next admission begins after them.
MAX_TENANTS = 500
ROUNDS = 4
NO_CAP = 1 << 30


@dataclass
class Position:
    """Where the next admission of a queue begins among more than MAX_TENANTS tenants, by priority.

    A transaction may be rolled back and run again, so it writes `pending`; call `advance()` after its commit.
    """

    after: dict[int, str] = field(default_factory=dict)
    pending: dict[int, str | None] = field(default_factory=dict)

    def advance(self) -> None:
        self.after = {priority: tenant for priority, tenant in (self.after | self.pending).items() if tenant}
        self.pending = {}


def admit(
    session: Session, queue: str, room: int, position: Position | None = None, *, promoted_room: int = 0
) -> list[QueuedRef]:
    """Admit up to `room` jobs of the queue, in the order in which they are to be pushed after the commit.

    Promoted jobs come in addition to the room: of each tenant below its share that has nothing in a window which others
    fill; and up to `promoted_room` of a priority above 0.
    """
    position = position or Position()
    position.pending = {}
    current = limits.read(session)
    if current.is_paused("queue", queue):
        return []
    admitted: list[QueuedRef] = []
    load: Load | None = None
    highest: int | None = None
    for priority, groups in _levels(session, queue, position):
        free = [group for group in groups if not _is_paused(current, group)]
        if not free:
            continue
        highest = priority if highest is None else highest
        if len(free) == 1 and _is_uncapped(current, queue, free) and not _has_others(session, queue, free[0].tenant):
            limit = max(room, promoted_room if priority > 0 else 0)
            taken = admissions.admit_oldest(session, queue, priority, *free[0], limit) if limit > 0 else []
        else:
            load = load or _load(session)
            level = _Level(queue, priority, free, current, load)
            entering = _entering(level) if priority == highest else {}
            taken = _admit_shares(session, level, room, promoted_room, entering)
            load.add(taken)
        admitted += [ref._replace(promoted=True) for ref in taken] if priority > 0 else taken
        room -= len(taken)
        if room <= 0:
            break
    return sorted(admitted, key=lambda ref: not ref.promoted)


@lru_cache
def _contended_sql() -> sa.TextClause:
    fed = "SELECT tenant FROM job WHERE state = 'queued' AND admitted_at IS NOT NULL AND queue = '{}' ORDER BY tenant{}"
    first, last = f"({fed} LIMIT 1)", f"({fed} LIMIT 1)"
    looks = (f"SELECT '{q}' AS queue WHERE {first.format(q, '')} <> {last.format(q, ' DESC')}" for q in QUEUES)
    return sa.text(" UNION ALL ".join(looks))


def contended(session: Session) -> list[str]:
    """Return the queues whose window holds jobs of more than one tenant."""
    return list(session.scalars(_contended_sql()))


def promotable(session: Session, queue: str) -> list[QueuedRef]:
    """Return jobs in the queue's window to promote: the first ones of tenants that run less than their share."""
    level = _Level(queue, 0, (), limits.read(session), _load(session))
    fed = level.here(level.load.fed)
    promotable: list[QueuedRef] = []
    for tenant, missing in _missing(level, list(fed)).items():
        theirs = sa.select(JOB.c.id, JOB.c.fence, JOB.c.kind, JOB.c.queue, JOB.c.crashes, JOB.c.tenant).where(
            JOB.c.state == "queued", JOB.c.admitted_at.is_not(None), JOB.c.queue == queue, JOB.c.tenant == tenant
        )
        first = theirs.order_by(JOB.c.priority.desc(), JOB.c.id).limit(missing)
        promotable += [QueuedRef(*row) for row in session.execute(first)]
    return promotable


class Group(NamedTuple):
    """The jobs of one tenant and kind."""

    tenant: str
    kind: str


def _is_paused(current: Limits, group: Group) -> bool:
    return current.is_paused("tenant", group.tenant) or current.is_paused("kind", group.kind)


def _is_uncapped(current: Limits, queue: str, groups: Iterable[Group]) -> bool:
    return not any(current.applying(queue, group.kind, group.tenant) for group in groups)


def _has_others(session: Session, queue: str, tenant: str) -> bool:
    """Return True if another tenant has a job in the window."""
    fed = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.admitted_at.is_not(None), JobRow.queue == queue)
    sides = (JobRow.tenant < tenant, JobRow.tenant > tenant)  # two index look-ups; <> would read the whole window
    return any(session.scalar(fed.where(side).limit(1)) is not None for side in sides)


def _levels(session: Session, queue: str, position: Position) -> Iterable[tuple[int, list[Group]]]:
    """Yield priorities that have jobs to admit, the highest first, with their groups."""
    below = 1 << 15
    while True:
        highest = sa.text(
            f"SELECT priority FROM job WHERE {_UNFED} AND priority < :below ORDER BY priority DESC LIMIT 1"
        )
        priority = session.scalar(highest, {"queue": queue, "below": below})
        if priority is None:
            return
        below = int(priority)
        yield below, _groups(session, queue, below, position)


@lru_cache
def _groups_sql() -> sa.TextClause:
    """SQL that skips from tenant to tenant and from kind to kind by the index, whatever the number of jobs."""
    unfed = f"{_UNFED} AND priority = :priority"
    return sa.text(
        f"""
        WITH RECURSIVE t(tenant) AS (
            SELECT (SELECT tenant FROM job WHERE {unfed} AND tenant > :after ORDER BY tenant LIMIT 1)
            UNION ALL
            SELECT (SELECT job.tenant FROM job WHERE {unfed} AND job.tenant > t.tenant ORDER BY job.tenant LIMIT 1)
            FROM t WHERE t.tenant IS NOT NULL),
        g(tenant, kind) AS (
            SELECT t.tenant, (SELECT job.kind FROM job WHERE {unfed} AND job.tenant = t.tenant
                              ORDER BY job.kind LIMIT 1)
            FROM (SELECT tenant FROM t WHERE tenant IS NOT NULL LIMIT :most) AS t
            UNION ALL
            SELECT g.tenant, (SELECT job.kind FROM job WHERE {unfed} AND job.tenant = g.tenant AND job.kind > g.kind
                              ORDER BY job.kind LIMIT 1) FROM g WHERE g.kind IS NOT NULL)
        SELECT tenant, kind FROM g WHERE kind IS NOT NULL"""
    )


def _groups(session: Session, queue: str, priority: int, position: Position) -> list[Group]:
    begin = position.after.get(priority, "")
    position.pending[priority] = None
    parameters = {"queue": queue, "priority": priority, "after": begin, "most": MAX_TENANTS}
    groups = [Group(*row) for row in session.execute(_groups_sql(), parameters)]
    tenants = {group.tenant for group in groups}
    if len(tenants) >= MAX_TENANTS:
        position.pending[priority] = max(tenants)
    elif begin:
        wrapped = session.execute(_groups_sql(), parameters | {"after": "", "most": MAX_TENANTS - len(tenants)})
        groups += [group for row in wrapped if (group := Group(*row)).tenant <= begin]
    return groups


@dataclass
class Load:
    """Counts of running jobs and of jobs in the windows, by (queue, tenant, kind)."""

    running: Counter[tuple[str, str, str]]
    fed: Counter[tuple[str, str, str]]
    _sums: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, scope: str, name: str) -> int:
        """Return the number of jobs that count against a cap of this queue, kind or tenant."""
        if (scope, name) not in self._sums:
            place = ("queue", "tenant", "kind").index(scope)
            both = (*self.running.items(), *self.fed.items())
            self._sums[scope, name] = sum(count for key, count in both if key[place] == name)
        return self._sums[scope, name]

    def add(self, refs: Iterable[QueuedRef]) -> None:
        self._sums.clear()
        self.fed.update((ref.queue, ref.tenant, ref.kind) for ref in refs)


def _load(session: Session) -> Load:
    columns = (JobRow.queue, JobRow.tenant, JobRow.kind)
    running = (JobRow.state == "running", JobRow.worker_id.is_not(None))
    fed = (JobRow.state == "queued", JobRow.admitted_at.is_not(None))
    counted = []
    for conditions in (running, fed):
        rows = session.execute(sa.select(*columns, sa.func.count()).where(*conditions).group_by(*columns))
        counted.append(Counter({(queue, tenant, kind): count for queue, tenant, kind, count in rows}))
    return Load(counted[0], counted[1])


class _Level(NamedTuple):
    """One priority of one queue, as it was read."""

    queue: str
    priority: int
    groups: Sequence[Group]
    limits: Limits
    load: Load

    def tenants(self) -> list[str]:
        """Return the tenants in random order, so that none is always first among equals."""
        names = list(dict.fromkeys(group.tenant for group in self.groups))
        random.shuffle(names)
        return names

    def here(self, counts: Counter[tuple[str, str, str]]) -> Counter[str]:
        """Return the counts of this queue by tenant."""
        by_tenant: Counter[str] = Counter()
        for (queue, tenant, _), count in counts.items():
            if queue == self.queue:
                by_tenant[tenant] += count
        return by_tenant

    def left(self, scope: Scope, name: str) -> int:
        """Return how many more jobs a cap lets into the window."""
        cap = self.limits.cap(scope, name)
        return NO_CAP if cap is None else max(0, cap - self.load.of(scope, name))


def _admit_shares(
    session: Session, level: _Level, room: int, promoted_room: int, entering: Mapping[str, int]
) -> list[QueuedRef]:
    tenants = level.tenants()
    beyond = promoted_room if level.priority > 0 else sum(entering.values())
    if room < beyond:
        # No room for all: only tenants below their share get in.
        shares = _chosen(session, level, tenants if level.priority > 0 else list(entering), beyond, entering)
    else:
        shares = _chosen(session, level, tenants, room, None)
    refs = admissions.admit_ids(session, [job_id for ids in shares.values() for job_id in ids])
    of_tenant: dict[str, list[QueuedRef]] = {}
    for ref in refs:
        of_tenant.setdefault(ref.tenant, []).append(ref)
    ordered = [
        ((place + 1) / level.limits.weight(tenant), number, ref._replace(promoted=place < entering.get(tenant, 0)))
        for number, tenant in enumerate(tenants)
        for place, ref in enumerate(of_tenant.get(tenant, []))
    ]
    return [ref for *_, ref in sorted(ordered, key=lambda entry: entry[:2])]


def _entering(level: _Level) -> dict[str, int]:
    """Map tenants without a job in a window that others use to what they miss of their share."""
    fed = level.here(level.load.fed)
    away = [tenant for tenant in level.tenants() if not fed[tenant]]
    return _missing(level, away) if fed else {}


def _missing(level: _Level, tenants: Iterable[str]) -> dict[str, int]:
    """Map each tenant below its share of the running jobs to the number it misses."""
    running, fed = level.here(level.load.running), level.here(level.load.fed)
    present = {*level.tenants(), *running, *fed}
    weights = sum(level.limits.weight(tenant) for tenant in present)
    missing = {}
    for tenant in tenants:
        # Rounded up: the slot that just became free is not among the running jobs.
        share = max(1, -(-running.total() * level.limits.weight(tenant) // weights))
        if share > running[tenant]:
            missing[tenant] = share - running[tenant]
    return missing


def _chosen(
    session: Session, level: _Level, tenants: Sequence[str], room: int, most: Mapping[str, int] | None
) -> dict[str, list[str]]:
    """Return the ids to admit by tenant: the tenant with the least for its weight gets each next place."""
    room = min(room, level.left("queue", level.queue))
    held = level.here(level.load.running) + level.here(level.load.fed)
    limit = {tenant: level.left("tenant", tenant) for tenant in tenants}
    if most is not None and level.priority <= 0:
        limit = {tenant: min(limit[tenant], most[tenant]) for tenant in tenants}
    chosen: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        counts = _distribute(
            room, {tenant: (held[tenant], level.limits.weight(tenant), limit[tenant]) for tenant in tenants}
        )
        if all(count <= len(chosen.get(tenant, ())) for tenant, count in counts.items()):
            break
        chosen = _oldest(session, level, counts)
        for tenant, count in counts.items():  # a tenant without more jobs leaves its places to the others
            if len(chosen.get(tenant, ())) < count:
                limit[tenant] = len(chosen.get(tenant, ()))
    return chosen


def _distribute(room: int, tenants: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """Distribute `room` places among tenants, each with (held, weight, limit)."""
    places = dict.fromkeys(tenants, 0)
    heap = [(held / weight, number, tenant) for number, (tenant, (held, weight, limit)) in enumerate(tenants.items())]
    heap = [entry for entry in heap if tenants[entry[2]][2] > 0]
    heapq.heapify(heap)
    while room > 0 and heap:
        _, number, tenant = heap[0]
        held, weight, limit = tenants[tenant]
        places[tenant] += 1
        room -= 1
        if places[tenant] < limit:
            heapq.heapreplace(heap, ((held + places[tenant]) / weight, number, tenant))
        else:
            heapq.heappop(heap)
    return {tenant: count for tenant, count in places.items() if count}


@lru_cache
def _oldest_sql(dialect: str) -> sa.TextClause:
    if dialect == "postgresql":
        table = "jsonb_to_recordset(CAST(:groups AS jsonb)) AS g(tenant text, kind text, most int)"
        oldest = (
            f"(SELECT id FROM job WHERE {_UNFED} AND priority = :priority AND due_at <= :now "
            "AND job.tenant = g.tenant AND job.kind = g.kind ORDER BY id LIMIT g.most)"
        )
        statement = f"SELECT j.id, g.tenant, g.kind FROM {table} CROSS JOIN LATERAL {oldest} AS j"
    else:  # SQLite has no LATERAL, and no limit that differs from row to row
        oldest = (
            f"(SELECT id FROM job WHERE {_UNFED} AND priority = :priority AND due_at <= :now "
            "AND job.tenant = g.value ->> 'tenant' AND job.kind = g.value ->> 'kind' ORDER BY id LIMIT :most)"
        )
        statement = (
            "SELECT j.id, g.value ->> 'tenant', g.value ->> 'kind' "
            f"FROM json_each(:groups) AS g JOIN job AS j ON j.id IN {oldest}"
        )
    return sa.text(statement).bindparams(sa.bindparam("now", type_=UtcDateTime()))


def _oldest(session: Session, level: _Level, counts: Mapping[str, int]) -> dict[str, list[str]]:
    """Return ids of the oldest jobs by tenant, at most `counts` of each, and of each kind what its cap leaves."""
    asked = [
        {"tenant": group.tenant, "kind": group.kind, "most": counts[group.tenant]}
        for group in level.groups
        if counts.get(group.tenant)
    ]
    parameters = {"queue": level.queue, "priority": level.priority, "now": clock.now(), "groups": json.dumps(asked)}
    if sql.dialect_of(session) == "sqlite":
        parameters["most"] = max(counts.values(), default=0)
    rows = sorted((str(job_id), tenant, kind) for job_id, tenant, kind in session.execute(
        _oldest_sql(sql.dialect_of(session)), parameters
    ))  # fmt: skip
    left = {group.kind: level.left("kind", group.kind) for group in level.groups}
    chosen: dict[str, list[str]] = {}
    for job_id, tenant, kind in rows:
        ids = chosen.setdefault(tenant, [])
        if len(ids) < counts[tenant] and left[kind] > 0:
            ids.append(job_id)
            left[kind] -= 1
    return chosen
