"""Job kinds for changes of watched pages."""

from __future__ import annotations

from app.documents.jobs import STAGES
from app.jobs.definition import Debounce, Job
from app.sources.changes import changes


class Rescrape(
    Job,
    kind="sources.rescrape",
    queue="fetch",
    time_limit_s=600,
    stages={"confirm": 2, "fetch": 20, **STAGES},
    on_end=changes.record_end,
):
    """Fetch the page of a change event again and index what is new."""

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
    """Create the missing watches at changedetection.io and delete those of pages that are gone."""


class ReconcileChanges(
    Job,
    kind="sources.reconcile_changes",
    queue="fetch",
    time_limit_s=3600,
    retry_delays=(10.0, 60.0, 300.0),
    open_to="write",
    unique_key=lambda job: "reconcile",
):
    """Find changes whose notification of changedetection.io did not arrive."""
