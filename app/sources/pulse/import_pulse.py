"""Import an installation of the older service: crawls, pages under the ids that clients hold, and changes.

Each batch is one transaction, and rows imported before are skipped: an interrupted import can be run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import clock
from app.core.db import Database
from app.core.errors import InvalidInput
from app.core.settings import get_settings
from app.documents import urls
from app.documents.ingest import import_versions
from app.documents.models import Document
from app.sources.models import ChangeEvent, CrawlSession
from app.sources.pulse import rows as pulse_rows
from app.sources.pulse.database import CONTENT, EVENTS, SESSIONS, PulseDatabase, Row

P = ParamSpec("P")
T = TypeVar("T")
# Another writer may take an id or a crawl between our read and our write; a retry reads it.
MAX_TRIES = 3


class ReportProgress(Protocol):
    """Callback for progress; a total of 0 means unknown."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


@dataclass(slots=True)
class ImportCounts:
    """Rows of one table; each row read is imported, already here, or left out."""

    read: int = 0
    taken: int = 0
    here: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class SkippedRow:
    table: str
    id: str
    reason: str


@dataclass(slots=True)
class ImportReport:
    """Result of an import.

    `moved`: old id → new id of pages whose id was taken or is out of range; None in a dry run. `unread`: changes whose
    page the older service had not fetched again.
    """

    tenant: str
    dry_run: bool
    crawls: ImportCounts = field(default_factory=ImportCounts)
    pages: ImportCounts = field(default_factory=ImportCounts)
    changes: ImportCounts = field(default_factory=ImportCounts)
    moved: dict[int, int | None] = field(default_factory=dict)
    left_out: list[SkippedRow] = field(default_factory=list)
    jobs: int = 0
    unread: int = 0

    def reasons(self) -> dict[str, int]:
        """Return the number of rows left out by reason, most frequent first."""
        return dict(Counter(row.reason for row in self.left_out).most_common())


@dataclass(frozen=True, slots=True)
class PulseImport:
    """One import; if it raises Unavailable, the batches imported so far stay."""

    old: PulseDatabase
    database: Database
    tenant: str
    dry_run: bool
    report_progress: ReportProgress

    def run(self) -> ImportReport:
        report = ImportReport(self.tenant, self.dry_run)
        self._crawls(report)
        if not self.dry_run:
            self._write(import_versions.reserve_ids, self.old.largest_id(import_versions.MAX_ID))
        self._pages(report)
        if not self.dry_run:
            self._settle(report)
        self._changes(report)
        return report

    def _crawls(self, report: ImportReport) -> None:
        counts, total = report.crawls, self.old.count(SESSIONS)
        for rows in self.old.sessions():
            crawls = _read(report, SESSIONS, "job_id", rows, pulse_rows.read_crawl)
            if self.dry_run:
                taken = self.database.read(_store_crawls, crawls, self.tenant, False)
            else:
                taken = self._write(_store_crawls, crawls, self.tenant, True)
            _add(counts, len(rows), len(crawls), taken)
            self.report_progress("crawls", counts.read, total)

    def _pages(self, report: ImportReport) -> None:
        counts, total = report.pages, self.old.count(CONTENT)
        for rows in self.old.contents(get_settings().max_body_bytes):
            olders = _read(report, CONTENT, "id", rows, pulse_rows.read_content)
            if self.dry_run:
                versions = self.database.read(import_versions.plan_import, olders, tenant=self.tenant)
            else:
                versions = self._write(import_versions.import_versions, olders, tenant=self.tenant)
            _add(counts, len(rows), len(olders), sum(not version.was_here for version in versions))
            report.moved |= {v.older_id: v.version_id for v in versions if v.version_id != v.older_id}
            self.report_progress("pages", counts.read, total)

    def _settle(self, report: ImportReport) -> None:
        """Enqueue the indexing of all imported pages, also of those of an interrupted run."""
        after: int | None = 0
        while after is not None:
            after, jobs = self._write(import_versions.settle, after, tenant=self.tenant)
            report.jobs += jobs
            self.report_progress("jobs", report.jobs, 0)

    def _changes(self, report: ImportReport) -> None:
        """Import the changes, after the pages since a change refers to its document."""
        counts, total = report.changes, self.old.count(EVENTS)
        for rows in self.old.events(get_settings().max_body_bytes):
            events = _read(report, EVENTS, "id", rows, pulse_rows.read_change)
            if self.dry_run:
                taken = self.database.read(_store_changes, events, self.tenant, False)
            else:
                taken = self._write(_store_changes, events, self.tenant, True)
            _add(counts, len(rows), len(events), taken)
            report.unread += sum(pulse_rows.waits(event["extra"]) for event in events)
            self.report_progress("changes", counts.read, total)

    def _write(self, f: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(MAX_TRIES - 1):
            try:
                return self.database.transaction(f, *args, **kwargs)
            except IntegrityError:
                continue
        return self.database.transaction(f, *args, **kwargs)


def _read(report: ImportReport, table: str, key: str, rows: Sequence[Row], translate: Callable[[Row], T]) -> list[T]:
    """Return the translated rows; those that cannot be imported are added to the report with the reason."""
    translated = []
    for row in rows:
        try:
            translated.append(translate(row))
        except InvalidInput as error:
            report.left_out.append(SkippedRow(table, str(row[key]), error.message))
    return translated


def _add(counts: ImportCounts, rows: int, readable: int, taken: int) -> None:
    counts.read += rows
    counts.left_out += rows - readable
    counts.taken += taken
    counts.here += readable - taken


def _store_crawls(session: Session, crawls: Sequence[dict[str, Any]], tenant: str, write: bool) -> int:
    """Store crawls that are new or have ended since the last import; return their number. Others are newer here."""
    ids = [crawl["crawl_id"] for crawl in crawls]
    query = sa.select(CrawlSession).where(CrawlSession.tenant == tenant, CrawlSession.crawl_id.in_(ids))
    known = {row.crawl_id: row for row in session.scalars(query.with_for_update() if write else query)}
    taken = 0
    for crawl in crawls:
        row = known.get(crawl["crawl_id"])
        if row is not None and (row.state != "in_progress" or crawl["state"] == "in_progress"):
            continue
        taken += 1
        if not write:
            continue
        if row is None:
            row = known[crawl["crawl_id"]] = CrawlSession(tenant=tenant, **crawl)
            session.add(row)
        else:
            for name in ("state", "success", "error_message", "completed_at"):
                setattr(row, name, crawl[name])
    return taken


def _store_changes(session: Session, events: Sequence[dict[str, Any]], tenant: str, write: bool) -> int:
    """Store changes that are new, or whose page was fetched since the last import; return their number."""
    query = sa.select(ChangeEvent).where(
        ChangeEvent.tenant == tenant, ChangeEvent.import_key.in_([event["import_key"] for event in events])
    )
    known = {row.import_key: row for row in session.scalars(query.with_for_update() if write else query)}
    documents = _documents(session, events, tenant)
    now, taken = clock.now(), 0
    for event in events:
        row = known.get(event["import_key"])
        document_id = documents.get(urls.canonical(event["url"]))
        if row is None:
            taken += 1
            if write:
                more = {"origin": "import", "document_id": document_id, "received_at": now}
                session.add(ChangeEvent(tenant=tenant, **event, **more))
            continue
        ended = pulse_rows.waits(row.extra) and not pulse_rows.waits(event["extra"])
        taken += ended
        if write:
            row.document_id = row.document_id or document_id
            for name in ("state", "error_message", "extra", "ended_at") if ended else ():
                setattr(row, name, event[name])
    return taken


def _documents(session: Session, events: Sequence[dict[str, Any]], tenant: str) -> dict[str | None, int]:
    """Return the ids of existing documents by canonical URL."""
    canonical_urls = {urls.canonical(event["url"]) for event in events}
    query = sa.select(Document.canonical_url, Document.id).where(
        Document.tenant == tenant, Document.canonical_url.in_(canonical_urls)
    )
    return dict(session.execute(query).tuples().all())
