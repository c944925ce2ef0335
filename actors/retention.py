"""Actors of retention."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.jobs.worker.progress import Progress
from app.retention.check_jobs import check_ledger
from app.retention.jobs import CheckLedger, Sweep
from app.retention.sweep import sweep


@job_actor(Sweep)
async def sweep_old(job: Sweep, progress: Progress) -> dict[str, Any]:
    return await sweep(progress)


@job_actor(CheckLedger)
async def check(job: CheckLedger, progress: Progress) -> dict[str, Any]:
    return await check_ledger(progress)
