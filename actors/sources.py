"""Actors of sources."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.jobs.progress import Progress
from app.sources import folder
from app.sources.jobs import FetchPage, Rescrape, ScanFolder
from app.sources.pages import fetch_and_ingest
from app.sources.rescrape import rescrape


@job_actor(FetchPage)
async def fetch_page(job: FetchPage, progress: Progress) -> dict[str, Any]:
    return await fetch_and_ingest(job, progress)


@job_actor(ScanFolder)
async def scan_folder(job: ScanFolder, progress: Progress) -> dict[str, Any]:
    return await folder.scan(progress)


@job_actor(Rescrape)
async def rescrape_page(job: Rescrape, progress: Progress) -> dict[str, Any]:
    return await rescrape(job, progress)
