"""Schedules of the jobs that check sources."""

from __future__ import annotations

from app.core.settings import get_settings
from app.jobs.schedules.store import Schedule
from app.sources.changes.jobs import ReconcileChanges, SyncWatches
from app.sources.crawls.jobs import CheckCrawls
from app.sources.jobs import ScanFolder

if get_settings().watch_folder is not None:
    Schedule("watched folder", ScanFolder(), every_s=60)

if get_settings().changedetection_url:
    Schedule("watches of pages", SyncWatches(), every_s=60)
    Schedule("missed changes", ReconcileChanges(), every_s=900)

Schedule("crawls that went quiet", CheckCrawls(), every_s=300)
