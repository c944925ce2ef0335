"""Kinds of job about sources."""

from __future__ import annotations

from typing import Any

from app.documents.accept.accept import About
from app.documents.jobs import STAGES
from app.documents.operations import note_end
from app.jobs.definition import Debounce, Job
from app.sources.changes import changes


class ScanFolder(
    Job,
    kind="sources.scan_folder",
    queue="bulk",
    time_limit_s=6 * 3600,
    retry_delays=(60.0, 300.0),
    open_to="operator",
    unique_key=lambda job: "folder",
):
    """Accept what is new or has changed in the watched folder."""


class Rescrape(
    Job,
    kind="sources.rescrape",
    queue="fetch",
    time_limit_s=600,
    stages={"confirm": 2, "fetch": 20, **STAGES},
    on_end=changes.ended,
):
    """Read the page of a change event again, and index what is new."""

    event_id: int


class SyncWatches(
    Job,
    kind="sources.sync_watches",
    queue="fetch",
    time_limit_s=6 * 3600,
    retry_delays=(5.0, 30.0, 120.0, 600.0),
    running_cap=1,
    unique=Debounce(0.0, 0.0),
):
    """Give each page that is to be watched its watch at changedetection.io, and remove those of pages that are gone."""


class ReconcileChanges(
    Job,
    kind="sources.reconcile_changes",
    queue="fetch",
    time_limit_s=3600,
    retry_delays=(10.0, 60.0, 300.0),
    open_to="write",
    unique_key=lambda job: "reconcile",
):
    """Look for changes that changedetection.io has seen and nobody told of."""


class FetchPage(
    Job,
    kind="sources.fetch_page",
    queue="fetch",
    time_limit_s=600,
    stages={"fetch": 20, **STAGES},
    on_end=note_end,
):
    """Fetch a document's page and index what comes. The other fields are About's."""

    document_id: int
    url: str
    title: str | None = None
    description: str | None = None
    language: str | None = None
    country: str | None = None
    is_mobile: bool = False
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    source: str = "api"

    def about(self) -> About:
        return About(**self.model_dump(exclude={"document_id"}))
