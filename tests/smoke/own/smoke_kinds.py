"""The kind of job that the containers run: long enough to be interrupted."""

from __future__ import annotations

import asyncio

from actors.runtime import job_actor
from app.jobs.definition import Job
from app.jobs.worker.progress import Progress


class Steps(Job, kind="smoke.steps", time_limit_s=300):
    """Awaits in small steps and reports each."""

    seconds: float


@job_actor(Steps)
async def steps(job: Steps, progress: Progress) -> None:
    count = max(1, round(job.seconds * 4))
    for step in range(count):
        progress.report(step, count, unit="steps")
        await asyncio.sleep(job.seconds / count)
    progress.report(count, count)
