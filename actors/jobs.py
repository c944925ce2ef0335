"""Actors about jobs themselves."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.jobs.inspect import bulk
from app.jobs.inspect.bulk import Bulk
from app.jobs.worker.progress import Progress


@job_actor(Bulk)
async def change_jobs(job: Bulk, progress: Progress) -> dict[str, Any]:
    return await bulk.run(job, progress)
