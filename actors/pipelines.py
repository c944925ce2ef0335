"""The actor of pipelines."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.jobs.children import pipeline
from app.jobs.children.pipeline import Pipeline
from app.jobs.worker.progress import Progress


@job_actor(Pipeline)
async def run_pipeline(job: Pipeline, progress: Progress) -> dict[str, Any] | None:
    return await pipeline.run(job, progress.claim)
