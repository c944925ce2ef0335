"""Job kinds for single pages and the watched folder."""

from __future__ import annotations

from typing import Any

from app.documents.accept.accept import About
from app.documents.jobs import STAGES
from app.documents.operations import note_end
from app.jobs.definition import Job


class ScanFolder(
    Job,
    kind="sources.scan_folder",
    queue="bulk",
    time_limit_s=6 * 3600,
    retry_delays=(60.0, 300.0),
    open_to="operator",
    unique_key=lambda job: "folder",
):
    """Accept the new and changed files of the watched folder."""


class FetchPage(
    Job,
    kind="sources.fetch_page",
    queue="fetch",
    time_limit_s=600,
    stages={"fetch": 20, **STAGES},
    on_end=note_end,
):
    """Fetch a document's page and index it. The other fields are those of About.

    Without `document_id` the document is found by its URL, or created once the page was fetched.
    """

    document_id: int | None = None
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
