"""Actors of search."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.runtime import job_actor
from app.core.db import read
from app.jobs.worker.progress import Progress
from app.search.engine import engine
from app.search.index import generations, model_switch, reanalysis, verify
from app.search.jobs import (
    BuildGeneration,
    CompareGenerations,
    DropGeneration,
    FollowIndex,
    ReanalyzeDocuments,
    SwapGeneration,
    VerifyIndex,
)


@job_actor(FollowIndex)
async def follow_index(job: FollowIndex, progress: Progress) -> dict[str, Any]:
    opened = await asyncio.to_thread(engine)  # may have to import the engine
    results: dict[str, Any] = {}
    for model in await read(generations.followed):  # the searched one comes first
        results[model.generation] = await opened.follow(model, progress)
    return results


@job_actor(VerifyIndex)
async def verify_index(job: VerifyIndex, progress: Progress) -> dict[str, Any]:
    return await verify.verify(progress, repair=job.repair)


@job_actor(ReanalyzeDocuments)
async def reanalyze_documents(job: ReanalyzeDocuments, progress: Progress) -> dict[str, Any]:
    return await reanalysis.reanalyze(progress)


@job_actor(BuildGeneration)
async def build_generation(job: BuildGeneration, progress: Progress) -> dict[str, Any]:
    return await model_switch.build(progress)


@job_actor(CompareGenerations)
async def compare_generations(job: CompareGenerations, progress: Progress) -> dict[str, Any]:
    return await model_switch.compare(job, progress)


@job_actor(SwapGeneration)
async def swap_generation(job: SwapGeneration, progress: Progress) -> dict[str, Any]:
    return await model_switch.swap(job, progress)


@job_actor(DropGeneration)
async def drop_generation(job: DropGeneration, progress: Progress) -> dict[str, Any]:
    return await model_switch.drop(job.name, progress)
