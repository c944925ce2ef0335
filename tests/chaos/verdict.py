"""Check of the outcome of the jobs: nothing lost, nothing done twice, nothing left over."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from redis import Redis
from sqlalchemy.orm import Session

from app.core import redis as core_redis
from app.core.db import database
from app.core.errors import AppError
from app.jobs.ledger import commands
from app.jobs.models import AttemptRow, JobRow
from app.jobs.states import ENDED
from tests.chaos.load import TENANT, Load
from tests.chaos.system import System
from tests.support.chaos_kinds import EFFECT, Broken, Endless, Family, Latest
from tests.support.waiting import wait_until

MAX_QUIET_S = 60.0
# Drains, sandboxes and the watchers of dead masters need a moment.
MAX_PROCESS_END_S = 15.0
EXPECTED = {Broken.kind: "failed", Endless.kind: "cancelled"}


@dataclass
class Verdict:
    """Every list is of sentences, each a fault of the system; all empty is what is wanted."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    quiet_s: float = 0.0
    jobs: Counter[str] = field(default_factory=Counter)
    effects: int = 0

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.left_over)

    def sentences(self) -> Iterable[str]:
        for name in ("lost", "doubled", "left_over"):
            for sentence in getattr(self, name):
                yield f"{name.replace('_', ' ')}: {sentence}"


def judge(system: System, load: Load, after: str = "") -> Verdict:
    """Wait until all is quiet, then look at every job whose id is greater than `after`."""
    verdict = Verdict()
    system.settle()
    load.pause()
    system.wait_until_database()
    began = time.monotonic()
    _wait_for_quiet(system, load, verdict)
    verdict.quiet_s = time.monotonic() - began
    _judge_jobs(load, verdict, after)
    _judge_latest(load, verdict)
    verdict.lost += load.clockwork.faults()
    _judge_processes(system, verdict)
    _judge_redis(system, verdict)
    return verdict


def _wait_for_quiet(system: System, load: Load, verdict: Verdict) -> None:
    deadline = time.monotonic() + MAX_QUIET_S
    while time.monotonic() < deadline:
        system.supervise(0.05)
        rows = database().read(_open_rows)
        if not rows and not load.clockwork.start_waiting():
            return
        for row in rows:
            # Its enqueueing was not confirmed, so no client has cancelled it yet.
            if _expected(row) == "cancelled" and row.parent_id is None and row.cancel_requested_at is None:
                database().transaction(commands.cancel, TENANT, row.id)
    for row in database().read(_open_rows):
        verdict.lost.append(f"{row.kind} {row.id} is still {row.state} (fence {row.fence}, worker {row.worker_id})")


def _open_rows(session: Session) -> list[JobRow]:
    return list(session.scalars(sa.select(JobRow).where(JobRow.state.not_in(ENDED))))


def _judge_jobs(load: Load, verdict: Verdict, after: str) -> None:
    rows, effects, successes = database().read(_everything, after)
    known = {row.id for row in rows}
    missing = [(job, kind) for job, kind in load.confirmed.items() if job > after and job not in known]
    verdict.lost += [f"{kind} {job} has no row" for job, kind in missing]
    verdict.jobs.update(row.kind for row in rows)
    _judge_families(rows, verdict)
    for row in rows:
        if row.state not in ENDED:
            continue
        expected_state = _expected(row)
        if row.state != expected_state:
            verdict.lost.append(
                f"{row.kind} {row.id} is {row.state}, not {expected_state} (crashes {row.crashes}, {row.error_code}: "
                f"{row.error_message})"
            )
        if row.kind == Latest.kind:  # runs once more for a number that came while it ran
            _judge_effects(row, effects[row.id], verdict, numbered=False)
            continue
        if expected_state == "succeeded" and successes[row.id] != 1:
            verdict.doubled.append(f"{row.kind} {row.id} succeeded {successes[row.id]} times")
        verdict.effects += len(effects[row.id])
        _judge_effects(row, effects[row.id], verdict)


def _expected(row: JobRow) -> str:
    """Return the state in which the job has to end; the payload of a parent or child says it."""
    if row.payload.get("endless"):
        return "cancelled"
    return "failed" if row.payload.get("fails") else EXPECTED.get(row.kind, "succeeded")


def _judge_families(rows: list[JobRow], verdict: Verdict) -> None:
    """Every parent has the children that it asked for, and has counted each of their ends once."""
    members: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.parent_id is not None:
            members[row.parent_id].append(row.state)
    for row in rows:
        states = members[row.id]
        ended_badly = sum(state in ("failed", "cancelled") for state in states)
        counted = (row.children, row.open_children, row.failed_children)
        if row.state in ENDED and counted != (len(states), 0, ended_badly):
            verdict.lost.append(f"{row.kind} {row.id} counts {counted} of {dict(Counter(states))}")
        if row.kind == Family.kind and row.state == "succeeded" and row.children != row.payload["children"]:
            verdict.lost.append(f"{row.kind} {row.id} has {row.children} children, not {row.payload['children']}")


def _everything(session: Session, after: str) -> tuple[list[JobRow], dict[str, list[Any]], Counter[str]]:
    jobs = sa.select(JobRow)
    effects = sa.select(EFFECT).order_by(EFFECT.c.id)
    ended = sa.select(AttemptRow.job_id, sa.func.count()).where(AttemptRow.outcome == "succeeded")
    if after:
        jobs, effects = jobs.where(JobRow.id > after), effects.where(EFFECT.c.job_id > after)
        ended = ended.where(AttemptRow.job_id > after)
    by_job: dict[str, list[Any]] = defaultdict(list)
    for effect in session.execute(effects):
        by_job[effect.job_id].append(effect)
    successes = Counter(dict(session.execute(ended.group_by(AttemptRow.job_id)).all()))
    return list(session.scalars(jobs)), by_job, successes


def _judge_latest(load: Load, verdict: Verdict) -> None:
    """The last number of each subject, or a later one whose enqueueing was not confirmed, has had its effect."""
    query = sa.select(JobRow.unique_key, sa.func.max(EFFECT.c.effect)).where(
        sa.cast(JobRow.id, sa.Text) == EFFECT.c.job_id, JobRow.kind == Latest.kind
    )
    done: dict[str | None, int] = dict(
        database().read(lambda session: session.execute(query.group_by(JobRow.unique_key)).tuples().all())
    )
    for about, number in load.latest.items():
        if done.get(about, -1) < number:
            verdict.lost.append(f"number {number} about {about} has had no effect, the last is {done.get(about)}")


def _judge_effects(row: JobRow, effects: list[Any], verdict: Verdict, *, numbered: bool = True) -> None:
    counted = Counter(effect.effect for effect in effects)
    for number, count in counted.items():
        if count > 1:
            verdict.doubled.append(f"effect {row.id}:{number} was written {count} times")
    expected_count = int(row.payload.get("effects", 0)) if numbered else 0
    missing = set(range(expected_count)) - set(counted)
    if missing and row.state == "succeeded":
        verdict.lost.append(f"{row.kind} {row.id} succeeded without its effects {sorted(missing)}")
    if numbered and max(counted, default=-1) >= expected_count:
        verdict.doubled.append(f"{row.kind} {row.id} went on after its end: effects {sorted(counted)}")
    fences = [effect.fence for effect in effects]
    if fences != sorted(fences) or any(effect.fence != effect.job_fence for effect in effects):
        verdict.doubled.append(f"{row.kind} {row.id}: a worker wrote that had lost it, fences {fences}")


def _judge_processes(system: System, verdict: Verdict) -> None:
    def all_marked_dead() -> bool:
        system.supervise(0.1)
        return not system.surviving_processes() and system.worker_rows_alive() <= system.workers

    try:
        wait_until(all_marked_dead, timeout_s=MAX_PROCESS_END_S, what="the dead to be gone")
    except AssertionError:
        verdict.left_over += [f"surviving_processes process: {process}" for process in system.surviving_processes()]
        rows = system.worker_rows_alive()
        if rows > system.workers:
            verdict.left_over.append(f"{rows} workers count as living, {system.workers} do")


def _judge_redis(system: System, verdict: Verdict) -> None:
    with system.redis.client() as client:
        for key in client.scan_iter(count=1000):
            if client.ttl(key) == -1 and not str(key).startswith(f"{core_redis.NAMESPACE}:"):
                verdict.left_over.append(f"the Redis key {key} never expires")
        with suppress(AssertionError):
            wait_until(lambda: not _messages(client), timeout_s=12, what="the last messages to be forgotten")
        for key, count in _messages(client).items():
            verdict.left_over.append(f"{count} messages of ended jobs are in {key}")
        quarantined = client.llen(core_redis.QUARANTINE)
        if quarantined:
            verdict.left_over.append(f"{quarantined} messages are in quarantine")


def _messages(client: Redis) -> dict[str, int]:
    """Return the sizes of Dramatiq's keys: lists, bodies and the sets of workers, dead ones included."""
    sizes = {"list": client.llen, "hash": client.hlen, "set": client.scard}
    kinds = {str(key): str(client.type(key)) for key in client.scan_iter(f"{core_redis.NAMESPACE}:*")}
    sizes_by_key = {key: int(sizes[kind](key)) for key, kind in kinds.items() if kind in sizes}
    return {key: size for key, size in sizes_by_key.items() if size}


def recoveries(probes: list[tuple[str, str, datetime]]) -> dict[str, list[float]]:
    """For each fault: how long after it was over its probe had succeeded, in seconds."""
    ids = [job_id for _, job_id, _ in probes]

    def ends(session: Session) -> dict[str, datetime]:
        query = sa.select(JobRow.id, JobRow.finished_at).where(JobRow.id.in_(ids), JobRow.finished_at.is_not(None))
        return {job_id: finished for job_id, finished in session.execute(query) if finished is not None}

    finished = database().read(ends)
    delays: dict[str, list[float]] = defaultdict(list)
    for fault, job_id, over_at in probes:
        if job_id in finished:
            delays[fault].append(max(0.0, (finished[job_id] - over_at).total_seconds()))
    return delays


def attempts() -> Counter[str]:
    """All runs by their outcome."""

    def count(session: Session) -> dict[str, int]:
        query = sa.select(AttemptRow.outcome, sa.func.count()).group_by(AttemptRow.outcome)
        return dict(session.execute(query).all())

    try:
        return Counter(database().read(count))
    except AppError:
        return Counter()
