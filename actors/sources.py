"""Actors of sources."""

from __future__ import annotations

from typing import Any

from actors.runtime import job_actor
from app.jobs.worker.progress import Progress
from app.sources import folder
from app.sources.changes import reconcile, watch_jobs
from app.sources.changes.jobs import ReconcileChanges, Rescrape, SyncWatches
from app.sources.changes.rescrape import rescrape
from app.sources.crawls import check, remote, run
from app.sources.crawls.jobs import CheckCrawls, Crawl, StopCrawl
from app.sources.jobs import FetchPage, ScanFolder
from app.sources.pages import fetch_and_ingest


@job_actor(FetchPage)
async def fetch_page(job: FetchPage, progress: Progress) -> dict[str, Any]:
    return await fetch_and_ingest(job, progress)


@job_actor(ScanFolder)
async def scan_folder(job: ScanFolder, progress: Progress) -> dict[str, Any]:
    return await folder.scan(progress)


@job_actor(Rescrape)
async def rescrape_page(job: Rescrape, progress: Progress) -> dict[str, Any]:
    return await rescrape(job, progress)


@job_actor(SyncWatches)
async def sync_watches(job: SyncWatches, progress: Progress) -> dict[str, Any]:
    return await watch_jobs.sync(progress)


@job_actor(ReconcileChanges)
async def reconcile_changes(job: ReconcileChanges, progress: Progress) -> dict[str, Any]:
    return await reconcile.reconcile(progress)


@job_actor(Crawl)
async def crawl_site(job: Crawl, progress: Progress) -> dict[str, Any]:
    return await run.crawl(job, progress)


@job_actor(StopCrawl)
async def stop_crawl(job: StopCrawl, progress: Progress) -> dict[str, Any]:
    return await remote.stop(job)


@job_actor(CheckCrawls)
async def check_crawls(job: CheckCrawls, progress: Progress) -> dict[str, Any]:
    return await check.check(progress)
