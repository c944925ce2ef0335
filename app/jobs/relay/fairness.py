"""The fair order in which relays admit: priority first, then the tenants by their weights, of each the oldest first.

A tenant's share is counted over what it has running and in the window, so who was away comes first and who holds much
waits, without any memory of turns.
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
from app.core import sql as sqlrows
from app.core.db import UtcDateTime
from app.jobs.admission import limits
from app.jobs.admission.limits import Gates
from app.jobs.admission.push import Ticket
from app.jobs.models import JOB, JobRow
from app.jobs.queues import QUEUES

_TICKET = "id, fence, kind, queue, crashes, tenant"
_UNFED = "state = 'queued' AND admitted_at IS NULL AND queue = :queue"
# So many tenants are looked at in one admission; the next one begins after them.
MOST_TENANTS = 500
ROUNDS = 4
NO_CAP = 1 << 30

# Where the next look at a queue's tenants begins, for those of which there are more than MOST_TENANTS.
_after: dict[tuple[str, int], str] = {}


def admit(session: Session, queue: str, room: int, *, early_room: int = 0) -> list[Ticket]:
    """Admit up to `room` jobs of the queue, in the order in which they are to be pushed after the commit.

    Beyond the room come those that are early (`Ticket.early`): of each tenant that runs less than its share and has
    nothing in the window that others fill; and up to `early_room` of a priority above 0.
    """
    known = limits.read(session)
    if known.is_paused("queue", queue):
        return []
    admitted: list[Ticket] = []
    load: Load | None = None
    highest: int | None = None
    for priority, groups in _levels(session, queue):
        free = [group for group in groups if not _is_paused(known, group)]
        if not free:
            continue
        highest = priority if highest is None else highest
        if len(free) == 1 and _is_uncapped(known, queue, free) and not _has_others(session, queue, free[0].tenant):
            most = max(room, early_room if priority > 0 else 0)
            taken = _admit_group(session, queue, priority, free[0], most) if most > 0 else []
        else:
            load = load or _load(session)
            level = _Level(queue, priority, free, known, load)
            entering = _entering(level) if priority == highest else {}
            taken = _admit_shares(session, level, room, early_room, entering)
            load.add(taken)
        admitted += [ticket._replace(early=True) for ticket in taken] if priority > 0 else taken
        room -= len(taken)
        if room <= 0:
            break
    return sorted(admitted, key=lambda ticket: not ticket.early)


@lru_cache
def _crowded_sql() -> sa.TextClause:
    fed = "SELECT tenant FROM job WHERE state = 'queued' AND admitted_at IS NOT NULL AND queue = '{}' ORDER BY tenant{}"
    first, last = f"({fed} LIMIT 1)", f"({fed} LIMIT 1)"
    looks = (f"SELECT '{q}' AS queue WHERE {first.format(q, '')} <> {last.format(q, ' DESC')}" for q in QUEUES)
    return sa.text(" UNION ALL ".join(looks))


def crowded(session: Session) -> list[str]:
    """The queues whose window holds jobs of more than one tenant."""
    return list(session.scalars(_crowded_sql()))


def hastened(session: Session, queue: str) -> list[Ticket]:
    """Jobs in the queue's window that should come early: of tenants that run less than their share, the first ones."""
    level = _Level(queue, 0, (), limits.read(session), _load(session))
    fed = level.here(level.load.fed)
    found: list[Ticket] = []
    for tenant, missing in _missing(level, list(fed)).items():
        theirs = sa.select(JOB.c.id, JOB.c.fence, JOB.c.kind, JOB.c.queue, JOB.c.crashes, JOB.c.tenant).where(
            JOB.c.state == "queued", JOB.c.admitted_at.is_not(None), JOB.c.queue == queue, JOB.c.tenant == tenant
        )
        first = theirs.order_by(JOB.c.priority.desc(), JOB.c.id).limit(missing)
        found += [Ticket(*row) for row in session.execute(first)]
    return found


class Group(NamedTuple):
    """The jobs of one tenant and kind."""

    tenant: str
    kind: str


def _is_paused(known: Gates, group: Group) -> bool:
    return known.is_paused("tenant", group.tenant) or known.is_paused("kind", group.kind)


def _is_uncapped(known: Gates, queue: str, groups: Iterable[Group]) -> bool:
    return not any(known.before(queue, group.kind, group.tenant) for group in groups)


def _has_others(session: Session, queue: str, tenant: str) -> bool:
    """Whether another tenant has something in the window."""
    fed = sa.select(JobRow.id).where(JobRow.state == "queued", JobRow.admitted_at.is_not(None), JobRow.queue == queue)
    sides = (JobRow.tenant < tenant, JobRow.tenant > tenant)  # two looks into an index, where <> reads the window
    return any(session.scalar(fed.where(side).limit(1)) is not None for side in sides)


def _levels(session: Session, queue: str) -> Iterable[tuple[int, list[Group]]]:
    """Priorities that have jobs to admit, the highest first, with their groups."""
    below = 1 << 15
    while True:
        highest = sa.text(
            f"SELECT priority FROM job WHERE {_UNFED} AND priority < :below ORDER BY priority DESC LIMIT 1"
        )
        priority = session.scalar(highest, {"queue": queue, "below": below})
        if priority is None:
            return
        below = int(priority)
        yield below, _groups(session, queue, below)


@lru_cache
def _groups_sql() -> sa.TextClause:
    """Skips from tenant to tenant and from kind to kind by the index, however many jobs each has."""
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


def _groups(session: Session, queue: str, priority: int) -> list[Group]:
    begin = _after.pop((queue, priority), "")
    parameters = {"queue": queue, "priority": priority, "after": begin, "most": MOST_TENANTS}
    groups = [Group(*row) for row in session.execute(_groups_sql(), parameters)]
    tenants = {group.tenant for group in groups}
    if len(tenants) >= MOST_TENANTS:
        _after[queue, priority] = max(tenants)
    elif begin:
        wrapped = session.execute(_groups_sql(), parameters | {"after": "", "most": MOST_TENANTS - len(tenants)})
        groups += [group for row in wrapped if (group := Group(*row)).tenant <= begin]
    return groups


@dataclass
class Load:
    """What runs and what lies in the windows, counted by (queue, tenant, kind)."""

    running: Counter[tuple[str, str, str]]
    fed: Counter[tuple[str, str, str]]
    _sums: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, scope: str, name: str) -> int:
        """All that a cap of this queue, kind or tenant counts."""
        if (scope, name) not in self._sums:
            place = ("queue", "tenant", "kind").index(scope)
            both = (*self.running.items(), *self.fed.items())
            self._sums[scope, name] = sum(count for key, count in both if key[place] == name)
        return self._sums[scope, name]

    def add(self, tickets: Iterable[Ticket]) -> None:
        self._sums.clear()
        self.fed.update((ticket.queue, ticket.tenant, ticket.kind) for ticket in tickets)


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
    """One priority of one queue, as it is found."""

    queue: str
    priority: int
    groups: Sequence[Group]
    known: Gates
    load: Load

    def tenants(self) -> list[str]:
        """In random order: nobody is always first among equals."""
        names = list(dict.fromkeys(group.tenant for group in self.groups))
        random.shuffle(names)
        return names

    def here(self, counts: Counter[tuple[str, str, str]]) -> Counter[str]:
        """The counts of this queue by tenant."""
        found: Counter[str] = Counter()
        for (queue, tenant, _), count in counts.items():
            if queue == self.queue:
                found[tenant] += count
        return found

    def left(self, scope: limits.Scope, name: str) -> int:
        """How many more a cap lets into the window."""
        cap = self.known.cap(scope, name)
        return NO_CAP if cap is None else max(0, cap - self.load.of(scope, name))


def _admit_shares(
    session: Session, level: _Level, room: int, early_room: int, entering: Mapping[str, int]
) -> list[Ticket]:
    tenants = level.tenants()
    beyond = early_room if level.priority > 0 else sum(entering.values())
    if room < beyond:
        # No room for all: those below their share still get in, and nobody else.
        shares = _chosen(session, level, tenants if level.priority > 0 else list(entering), beyond, entering)
    else:
        shares = _chosen(session, level, tenants, room, None)
    tickets = _admit_ids(session, [job_id for ids in shares.values() for job_id in ids])
    of_tenant: dict[str, list[Ticket]] = {}
    for ticket in tickets:
        of_tenant.setdefault(ticket.tenant, []).append(ticket)
    ordered = [
        ((place + 1) / level.known.weight(tenant), number, ticket._replace(early=place < entering.get(tenant, 0)))
        for number, tenant in enumerate(tenants)
        for place, ticket in enumerate(of_tenant.get(tenant, []))
    ]
    return [ticket for *_, ticket in sorted(ordered, key=lambda one: one[:2])]


def _entering(level: _Level) -> dict[str, int]:
    """Tenants that have nothing in the window while others have, with what they miss of their share."""
    fed = level.here(level.load.fed)
    away = [tenant for tenant in level.tenants() if not fed[tenant]]
    return _missing(level, away) if fed else {}


def _missing(level: _Level, tenants: Iterable[str]) -> dict[str, int]:
    """How many more would run of each of these, were what runs shared among all who are there; none for who has it."""
    running, fed = level.here(level.load.running), level.here(level.load.fed)
    present = {*level.tenants(), *running, *fed}
    weights = sum(level.known.weight(tenant) for tenant in present)
    found = {}
    for tenant in tenants:
        # Rounded up: the slot that has just become free is not among what runs.
        share = max(1, -(-running.total() * level.known.weight(tenant) // weights))
        if share > running[tenant]:
            found[tenant] = share - running[tenant]
    return found


def _chosen(
    session: Session, level: _Level, tenants: Sequence[str], room: int, most: Mapping[str, int] | None
) -> dict[str, list[str]]:
    """The ids to admit by tenant: to whoever has least for its weight goes the next place, until all are given."""
    room = min(room, level.left("queue", level.queue))
    held = level.here(level.load.running) + level.here(level.load.fed)
    limit = {tenant: level.left("tenant", tenant) for tenant in tenants}
    if most is not None and level.priority <= 0:
        limit = {tenant: min(limit[tenant], most[tenant]) for tenant in tenants}
    found: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        wanted = _pour(room, {tenant: (held[tenant], level.known.weight(tenant), limit[tenant]) for tenant in tenants})
        if all(count <= len(found.get(tenant, ())) for tenant, count in wanted.items()):
            break
        found = _oldest(session, level, wanted)
        for tenant, count in wanted.items():  # who has no more leaves its places to the others
            if len(found.get(tenant, ())) < count:
                limit[tenant] = len(found.get(tenant, ()))
    return found


def _pour(room: int, tenants: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """Share `room` places among tenants of (held, weight, limit)."""
    given = dict.fromkeys(tenants, 0)
    heap = [(held / weight, number, tenant) for number, (tenant, (held, weight, limit)) in enumerate(tenants.items())]
    heap = [one for one in heap if tenants[one[2]][2] > 0]
    heapq.heapify(heap)
    while room > 0 and heap:
        _, number, tenant = heap[0]
        held, weight, limit = tenants[tenant]
        given[tenant] += 1
        room -= 1
        if given[tenant] < limit:
            heapq.heapreplace(heap, ((held + given[tenant]) / weight, number, tenant))
        else:
            heapq.heappop(heap)
    return {tenant: count for tenant, count in given.items() if count}


@lru_cache
def _oldest_sql(dialect: str) -> sa.TextClause:
    if dialect == "postgresql":
        table = "jsonb_to_recordset(CAST(:groups AS jsonb)) AS g(tenant text, kind text, most int)"
        oldest = (
            f"(SELECT id FROM job WHERE {_UNFED} AND priority = :priority AND due_at <= :now "
            "AND job.tenant = g.tenant AND job.kind = g.kind ORDER BY id LIMIT g.most)"
        )
        sql = f"SELECT j.id, g.tenant, g.kind FROM {table} CROSS JOIN LATERAL {oldest} AS j"
    else:  # which knows no LATERAL, and no limit that differs from row to row
        oldest = (
            f"(SELECT id FROM job WHERE {_UNFED} AND priority = :priority AND due_at <= :now "
            "AND job.tenant = g.value ->> 'tenant' AND job.kind = g.value ->> 'kind' ORDER BY id LIMIT :most)"
        )
        sql = (
            "SELECT j.id, g.value ->> 'tenant', g.value ->> 'kind' "
            f"FROM json_each(:groups) AS g JOIN job AS j ON j.id IN {oldest}"
        )
    return sa.text(sql).bindparams(sa.bindparam("now", type_=UtcDateTime()))


def _oldest(session: Session, level: _Level, wanted: Mapping[str, int]) -> dict[str, list[str]]:
    """The ids of the oldest jobs of each tenant, at most so many of each, and of each kind what its cap leaves."""
    asked = [
        {"tenant": group.tenant, "kind": group.kind, "most": wanted[group.tenant]}
        for group in level.groups
        if wanted.get(group.tenant)
    ]
    parameters = {"queue": level.queue, "priority": level.priority, "now": clock.now(), "groups": json.dumps(asked)}
    if sql.dialect_of(session) == "sqlite":
        parameters["most"] = max(wanted.values(), default=0)
    rows = sorted((str(job_id), tenant, kind) for job_id, tenant, kind in session.execute(
        _oldest_sql(sql.dialect_of(session)), parameters
    ))  # fmt: skip
    left = {group.kind: level.left("kind", group.kind) for group in level.groups}
    found: dict[str, list[str]] = {}
    for job_id, tenant, kind in rows:
        ids = found.setdefault(tenant, [])
        if len(ids) < wanted[tenant] and left[kind] > 0:
            ids.append(job_id)
            left[kind] -= 1
    return found


@lru_cache
def _admit_sql(dialect: str, moving: str) -> sa.TextualSelect:
    lock = " FOR UPDATE SKIP LOCKED" if dialect == "postgresql" else ""
    # Not a subquery: PostgreSQL may run one once a row, each time for others, and LIMIT limits nothing.
    return (
        sa.text(
            f"""
            WITH moving AS MATERIALIZED ({moving}{lock})
            UPDATE job SET admitted_at = :now WHERE id IN (SELECT id FROM moving)
            RETURNING {_TICKET}"""
        )
        .bindparams(sa.bindparam("now", type_=UtcDateTime()))
        .columns(*(sa.column(name, JOB.c[name].type) for name in _TICKET.split(", ")))
    )


_OF_GROUP = (
    f"SELECT id FROM job WHERE {_UNFED} AND priority = :priority AND tenant = :tenant AND kind = :kind "
    "AND due_at <= :now ORDER BY id LIMIT :room"
)


def _admit_group(session: Session, queue: str, priority: int, group: Group, room: int) -> list[Ticket]:
    """The oldest of a group that has its queue for itself: no share to count, one statement."""
    where = {"queue": queue, "priority": priority, "tenant": group.tenant, "kind": group.kind, "room": room}
    rows = session.execute(_admit_sql(sql.dialect_of(session), _OF_GROUP), where | {"now": clock.now()})
    return sorted((Ticket(*row) for row in rows), key=lambda ticket: ticket.id)


def _admit_ids(session: Session, ids: Sequence[str]) -> list[Ticket]:
    """Those of the ids that nobody else admits meanwhile."""
    if not ids:
        return []
    dialect = sql.dialect_of(session)
    moving = (
        f"SELECT id FROM job WHERE id {sqlrows.among(dialect)} AND state = 'queued' AND admitted_at IS NULL ORDER BY id"
    )
    rows = session.execute(_admit_sql(dialect, moving), {"ids": sqlrows.ids(dialect, ids), "now": clock.now()})
    return sorted((Ticket(*row) for row in rows), key=lambda ticket: ticket.id)
