"""Jobs of the chaos run: each effect is a row, so that losses and doubles can be counted.

An effect is a separate transaction. It begins with a hold and is skipped if an earlier run of the job has written it.
The table has no unique key: a double is to be seen, not refused. A row has the fence of the writer and that of the job
at that moment; where they differ, the writer had lost the job.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from actors.runtime import job_actor
from app.core.db import BigId, in_transaction
from app.core.errors import InvalidInput, Unavailable
from app.jobs.children import children as families
from app.jobs.children.children import WaitForChildren, max_failures
from app.jobs.definition import Debounce, Job
from app.jobs.ledger import claims
from app.jobs.ledger.claims import Claim
from app.jobs.models import JOB
from app.jobs.sandbox import call
from app.jobs.worker.progress import Progress
from tests.support.sandbox_steps import nap

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
    claims.hold(session, claim)
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
    for effect in range(min(tries + 1, job.effects)):  # SQL that was away has cost it a try as well
        await in_transaction(write_effect, progress.claim, effect)
    if tries + 1 < job.effects:
        raise Unavailable(f"try {tries + 1} of {job.effects} fails")


class Broken(Job, kind="chaos.broken", retry_delays=DELAYS):
    """One effect, then an error on every try."""

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


class InSandbox(Job, kind="chaos.in_sandbox", queue="bulk", retry_delays=DELAYS):
    """A step in a sandbox, then its effect."""

    effects: int = 1
    seconds: float = 0.05


@job_actor(InSandbox)
async def in_sandbox(job: InSandbox, progress: Progress) -> None:
    await call.run(nap, {"seconds": job.seconds}, time_limit_s=30, memory_mb=None)
    await _effects(progress, 1, 0)


class Plain(Job, kind="chaos.plain", queue="bulk", retry_delays=DELAYS):
    """A plain function: all of it in a sandbox, where no effect can be written."""

    effects: int = 0
    seconds: float = 0.05


@job_actor(Plain)
def plain(job: Plain, progress: Progress) -> dict[str, Any]:
    progress.report(0, 1)
    return nap(job.seconds)


class Member(Job, kind="chaos.member", retry_delays=DELAYS):
    """A child: one effect, then it succeeds, fails, or waits to be cancelled with its parent."""

    effects: int = 1
    pause_s: float = 0
    fails: bool = False
    endless: bool = False


@job_actor(Member)
async def member(job: Member, progress: Progress) -> None:
    await _effects(progress, 1, job.pause_s)
    if job.fails:
        raise InvalidInput("never")
    if job.endless:
        await asyncio.sleep(60)


class Family(Job, kind="chaos.family", retry_delays=DELAYS):
    """Starts its children in batches, waits, and writes its one effect when they have ended by its rule."""

    effects: int = 1
    children: int
    failing: int = 0
    allowed: int = 0
    endless: bool = False
    pause_s: float = 0
    batch: int = 100


def start_members(session: Session, claim: Claim, job: Family, first: int) -> int:
    numbers = range(first, min(first + job.batch, job.children))
    members = [Member(pause_s=job.pause_s, fails=n < job.failing, endless=job.endless) for n in numbers]
    return families.start(session, claim, members, first=first)


@job_actor(Family)
async def family(job: Family, progress: Progress) -> dict[str, Any]:
    if not progress.claim.continues:
        for first in range(0, job.children, job.batch):
            await in_transaction(start_members, progress.claim, job, first)
        raise WaitForChildren(max_failures(job.allowed))
    states = Counter([child.state async for child in families.results(progress.claim)])
    await _effects(progress, 1, 0)
    return dict(states)


class Chain(Job, kind="chaos.chain", retry_delays=DELAYS):
    """A step of a pipeline: continues the count of the previous step and writes one effect."""

    effects: int = 1
    previous: dict[str, int] | None = None


@job_actor(Chain)
async def chain(job: Chain, progress: Progress) -> dict[str, Any]:
    await _effects(progress, 1, 0)
    return {"count": (job.previous or {"count": 0})["count"] + 1}


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


class Latest(
    Job,
    kind="chaos.latest",
    retry_delays=DELAYS,
    unique_key=lambda job: job.about,
    unique=Debounce(0.3, 1.5),
):
    """Of all that come at once the last counts; its effect is its number."""

    about: str
    number: int


@job_actor(Latest)
async def latest(job: Latest, progress: Progress) -> None:
    await in_transaction(write_effect, progress.claim, job.number)
