"""Actors of search."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.runtime import job_actor
from app.jobs.progress import Progress
from app.search import verify
from app.search.engines.opening import engine
from app.search.jobs import FollowIndex, VerifyIndex
from app.search.query import model


@job_actor(FollowIndex)
async def follow_index(job: FollowIndex, progress: Progress) -> dict[str, Any]:
    opened = await asyncio.to_thread(engine)  # it may have to be imported
    return await opened.follow(model(), progress)


@job_actor(VerifyIndex)
async def verify_index(job: VerifyIndex, progress: Progress) -> dict[str, Any]:
    return await verify.verify(progress, repair=job.repair)
