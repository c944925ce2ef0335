"""A parent of many no-ops; brought in by MILLRACE_MODULES."""

from __future__ import annotations

from actors.runtime import job_actor
from app.core.db import in_transaction
from app.jobs.children import children as families
from app.jobs.children.children import ALL, WaitForChildren
from app.jobs.definition import Job
from app.jobs.worker.progress import Progress
from tests.support.kinds import Noop

BATCH = 1000


class Crowd(Job, kind="bench.crowd", time_limit_s=300):
    """Starts its children in batches, waits for all of them, and reads their results."""

    children: int


@job_actor(Crowd)
async def crowd(job: Crowd, progress: Progress) -> dict[str, int]:
    if not progress.claim.continues:
        for first in range(0, job.children, BATCH):
            children = [Noop(number=number) for number in range(first, min(first + BATCH, job.children))]
            await in_transaction(families.start, progress.claim, children, first=first)
        raise WaitForChildren(ALL)
    return {"read": len([child async for child in families.results(progress.claim)])}
