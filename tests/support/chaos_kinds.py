"""Jobs of the chaos run: what each has done is a row, so that losses and doubles can be counted.

An effect is one transaction of its own, begun with a hold, and looks first whether an earlier run of the job has
written it. Nothing in the table forbids a second one: a double is to be seen, not refused. Beside the writer's fence
stands the job's at that moment; where they differ, a worker wrote that had lost the job.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from actors.runtime import job_actor
from app.core.db import BigId, in_transaction
from app.core.errors import InvalidInput, Unavailable
from app.jobs import lanes, ledger
from app.jobs.definition import Job
from app.jobs.ledger import Claim
from app.jobs.models import JOB
from app.jobs.progress import Progress
from tests.support.lane_steps import nap

DELAYS = (0.1, 0.2, 0.3, 0.3, 0.3, 0.3)

EFFECT = sa.Table(
    "chaos_effect",
    sa.MetaData(),
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(36), nullable=False, index=True),
    sa.Column("effect", sa.Integer, nullable=False),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("job_fence", sa.Integer, nullable=False),
)


def write_effect(session: Session, claim: Claim, effect: int) -> None:
    """The effect `{job_id}:{effect}`, once."""
    ledger.hold(session, claim)
    written = sa.select(EFFECT.c.id).where(EFFECT.c.job_id == claim.id, EFFECT.c.effect == effect)
    if session.scalar(written.limit(1)) is None:
        fence = session.scalar(sa.select(JOB.c.fence).where(JOB.c.id == claim.id))
        values = {"job_id": claim.id, "effect": effect, "fence": claim.fence, "job_fence": fence}
        session.execute(sa.insert(EFFECT).values(values))


async def _effects(progress: Progress, count: int, pause_s: float, first: int = 0) -> None:
    for effect in range(first, first + count):
        await in_transaction(write_effect, progress.claim, effect)
        progress.report(effect + 1, first + count, unit="effects")
        await asyncio.sleep(pause_s)


class Quick(Job, kind="chaos.quick", queue="interactive", retry_delays=DELAYS):
    """One effect at once."""

    effects: int = 1


@job_actor(Quick)
async def quick(job: Quick, progress: Progress) -> None:
    await _effects(progress, job.effects, 0)


class Steps(Job, kind="chaos.steps", retry_delays=DELAYS):
    """Several effects with pauses."""

    effects: int
    pause_s: float


@job_actor(Steps)
async def steps(job: Steps, progress: Progress) -> None:
    await _effects(progress, job.effects, job.pause_s)


class Flaky(Job, kind="chaos.flaky", queue="fetch", retry_delays=DELAYS):
    """Each of its first tries writes one effect and fails."""

    effects: int


@job_actor(Flaky)
async def flaky(job: Flaky, progress: Progress) -> None:
    tries = progress.claim.tries
    for effect in range(tries + 1):
        await in_transaction(write_effect, progress.claim, effect)
    if tries + 1 < job.effects:
        raise Unavailable(f"try {tries + 1} of {job.effects} fails")


class Broken(Job, kind="chaos.broken", retry_delays=DELAYS):
    """One effect, then an error that no try mends."""

    effects: int = 1


@job_actor(Broken)
async def broken(job: Broken, progress: Progress) -> None:
    await _effects(progress, 1, 0)
    raise InvalidInput("never")


class Endless(Job, kind="chaos.endless", retry_delays=DELAYS):
    """One effect, then it waits to be cancelled; a second one would be a cancel that did not hold."""

    effects: int = 1


@job_actor(Endless)
async def endless(job: Endless, progress: Progress) -> None:
    await _effects(progress, 1, 0)
    await asyncio.sleep(60)
    await _effects(progress, 1, 0, first=1)


class InLane(Job, kind="chaos.in_lane", queue="bulk", retry_delays=DELAYS):
    """A step in a lane, then its effect."""

    effects: int = 1
    seconds: float = 0.05


@job_actor(InLane)
async def in_lane(job: InLane, progress: Progress) -> None:
    await lanes.run(nap, {"seconds": job.seconds}, time_limit_s=30, memory_mb=None)
    await _effects(progress, 1, 0)


class Plain(Job, kind="chaos.plain", queue="bulk", retry_delays=DELAYS):
    """A plain function: all of it in a lane, where no effect can be written."""

    effects: int = 0
    seconds: float = 0.05


@job_actor(Plain)
def plain(job: Plain, progress: Progress) -> dict[str, Any]:
    progress.report(0, 1)
    return nap(job.seconds)


class InTransaction(Job, kind="chaos.in_transaction", retry_delays=DELAYS):
    """Stays inside its transaction for a while, which no job should, and says so by a file."""

    path: str
    seconds: float
    effects: int = 1


def _write_slowly(session: Session, claim: Claim, job: InTransaction) -> None:
    write_effect(session, claim, 0)
    Path(job.path).touch()
    time.sleep(job.seconds)


@job_actor(InTransaction)
async def in_transaction_for_long(job: InTransaction, progress: Progress) -> None:
    await in_transaction(_write_slowly, progress.claim, job)
