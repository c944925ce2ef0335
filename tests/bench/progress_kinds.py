"""A job that says when it said something; brought in by MILLRACE_MODULES."""

from __future__ import annotations

import asyncio
import time

from actors.runtime import job_actor
from app.jobs.definition import Job
from app.jobs.worker.progress import Progress


class Speak(Job, kind="bench.speak", time_limit_s=300):
    """Reports the time, `times` times, `gap_s` apart: more than a report every 100 ms would wait for its turn."""

    times: int
    gap_s: float = 0.15


@job_actor(Speak)
async def speak(job: Speak, progress: Progress) -> None:
    for number in range(job.times):
        await asyncio.sleep(job.gap_s)
        progress.report(number + 1, job.times, message=repr(time.time()))
