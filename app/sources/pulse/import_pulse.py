"""An installation of the older service moved over: its crawls, its pages under the ids that clients hold, and the
changes that it was told of.

Each batch is one transaction, and what is here already is left alone: stopped anywhere and run again, it goes on.
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
# Somebody else may take an id or a crawl between our look and our write; the next look sees it.
TRIES = 3


class ReportProgress(Protocol):
    """Hears how far it is; a total of 0 is one that is not known."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


@dataclass(slots=True)
class ImportCounts:
    """Rows of one table; all that were read are one of the others."""

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
    """`moved`: old id → new id, of pages whose id is another's here, or none of ours; a dry run knows no new ids.

    `unread`: changes that still waited there for their page to be read again.
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
        """How often each, the most frequent first."""
        return dict(Counter(one.reason for one in self.left_out).most_common())


@dataclass(frozen=True, slots=True)
class PulseImport:
    """From where to where. What raises Unavailable on the way leaves what was taken by then."""

    old: PulseDatabase
    database: Database
    tenant: str
    dry_run: bool
    tell: ReportProgress

    def run(self) -> ImportReport:
        report = ImportReport(self.tenant, self.dry_run)
        self._crawls(report)
        if not self.dry_run:
            self._write(import_versions.reserve_ids, self.old.largest_id(import_versions.LARGEST_ID))
        self._pages(report)
        if not self.dry_run:
            self._settle(report)
        self._changes(report)
        return report

    def _crawls(self, report: ImportReport) -> None:
        counts, total = report.crawls, self.old.count(SESSIONS)
        for rows in self.old.sessions():
            crawls = _read(report, SESSIONS, "job_id", rows, pulse_rows.crawl)
            if self.dry_run:
                taken = self.database.read(_store_crawls, crawls, self.tenant, False)
            else:
                taken = self._write(_store_crawls, crawls, self.tenant, True)
            _add(counts, len(rows), len(crawls), taken)
            self.tell("crawls", counts.read, total)

    def _pages(self, report: ImportReport) -> None:
        counts, total = report.pages, self.old.count(CONTENT)
        for rows in self.old.contents(get_settings().max_body_bytes):
            olders = _read(report, CONTENT, "id", rows, pulse_rows.content)
            if self.dry_run:
                found = self.database.read(import_versions.judge, olders, tenant=self.tenant)
            else:
                found = self._write(import_versions.adopt, olders, tenant=self.tenant)
            _add(counts, len(rows), len(olders), sum(not one.was_here for one in found))
            report.moved |= {one.older_id: one.version_id for one in found if one.version_id != one.older_id}
            self.tell("pages", counts.read, total)

    def _settle(self, report: ImportReport) -> None:
        """What is searched of all that came, of this run or one that was stopped."""
        after: int | None = 0
        while after is not None:
            after, jobs = self._write(import_versions.settle, after, tenant=self.tenant)
            report.jobs += jobs
            self.tell("jobs", report.jobs, 0)

    def _changes(self, report: ImportReport) -> None:
        """After the pages, for a change knows its document."""
        counts, total = report.changes, self.old.count(EVENTS)
        for rows in self.old.events(get_settings().max_body_bytes):
            events = _read(report, EVENTS, "id", rows, pulse_rows.change)
            if self.dry_run:
                taken = self.database.read(_store_changes, events, self.tenant, False)
            else:
                taken = self._write(_store_changes, events, self.tenant, True)
            _add(counts, len(rows), len(events), taken)
            report.unread += sum(pulse_rows.waits(event["extra"]) for event in events)
            self.tell("changes", counts.read, total)

    def _write(self, f: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return self.database.transaction(f, *args, **kwargs)
            except IntegrityError:
                continue
        return self.database.transaction(f, *args, **kwargs)


def _read(report: ImportReport, table: str, key: str, rows: Sequence[Row], translate: Callable[[Row], T]) -> list[T]:
    """The rows in our words; what cannot be kept goes into the report with its reason."""
    found = []
    for row in rows:
        try:
            found.append(translate(row))
        except InvalidInput as error:
            report.left_out.append(SkippedRow(table, str(row[key]), error.message))
    return found


def _add(counts: ImportCounts, rows: int, readable: int, taken: int) -> None:
    counts.read += rows
    counts.left_out += rows - readable
    counts.taken += taken
    counts.here += readable - taken


def _store_crawls(session: Session, crawls: Sequence[dict[str, Any]], tenant: str, write: bool) -> int:
    """How many are new, or have ended since they were taken; what is known here of any other is the newer."""
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
    """How many are new, or have been read again since they were taken."""
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
    """By their canonical address, those that are here."""
    wanted = {urls.canonical(event["url"]) for event in events}
    query = sa.select(Document.canonical_url, Document.id).where(
        Document.tenant == tenant, Document.canonical_url.in_(wanted)
    )
    return dict(session.execute(query).tuples().all())
