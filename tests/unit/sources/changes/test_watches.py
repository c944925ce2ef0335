"""Watches are created and deleted, also after a crash; missed changes are found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core import clock
from app.core.db import Database, database
from app.documents import catalog
from app.documents.models import Document
from app.jobs import testing as jobs
from app.jobs.models import JobRow
from app.sources.changes import changes, watches
from app.sources.changes.jobs import ReconcileChanges, SyncWatches
from app.sources.models import ChangeEvent, PageWatch
from app.sources.payloads.change_bodies import PageChange
from tests.fakes.changedetection import FakeChangeDetection
from tests.support.databases import SettingsEnv
from tests.support.desk import TENANT, Desk

SECRET = "a-secret-of-tests-0123456789-abcdef"
URL = "https://example.org/prices"


@pytest.fixture
def fake_changedetection() -> Iterator[FakeChangeDetection]:
    with FakeChangeDetection().running() as player:
        yield player


@pytest.fixture
def desk(database_url: str, settings_env: SettingsEnv, fake_changedetection: FakeChangeDetection) -> Desk:
    settings_env(
        database_url=database_url, webhook_secret=SECRET, changedetection_url=fake_changedetection.url,
        changedetection_api_key="key", auto_watch_per_minute=100_000, url="https://millrace.example",
        retry_delays="1,1,1",
    )  # fmt: skip
    return Desk(database())


def _sync() -> dict[str, Any]:
    row = jobs.run_inline(SyncWatches())
    assert row.result is not None
    return row.result


def _rows(db: Database) -> dict[str, PageWatch]:
    return {row.url: row for row in db.read(lambda session: session.scalars(sa.select(PageWatch)).all())}


def _events(db: Database) -> list[ChangeEvent]:
    return list(db.read(lambda session: session.scalars(sa.select(ChangeEvent).order_by(ChangeEvent.id)).all()))


def test_each_page_gets_one_watch_with_a_notification(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    """Only indexed pages of the configured sources get a watch; a second run changes nothing."""
    desk.put("The heron.", url=URL, source="firecrawl")
    desk.put("The mill.", url="https://example.org/other", source="api")
    desk.put("No address.", external_id="x", source="firecrawl")
    desk.give("Not indexed yet.", url="https://example.org/late", source="firecrawl")
    assert _sync() == {"made": 1, "known": 0, "removed": 0, "failed": 0}
    [made] = fake_changedetection.watches.values()
    assert made["url"] == URL and made["time_between_check"]["hours"] == 1
    assert made["tags"] == [fake_changedetection.tags["millrace"]] and made["notification_format"] == "text"
    assert made["notification_urls"][0].startswith("jsons://millrace.example/api/webhook/changedetection?")
    assert SECRET not in made["notification_urls"][0]
    row = _rows(desk.db)[URL]
    assert (row.state, row.watch_id, row.is_ours) == ("present", made["uuid"], True)
    calls_before = len(fake_changedetection.calls)
    assert _sync() == {"made": 0, "known": 0, "removed": 0, "failed": 0}
    assert len(fake_changedetection.calls) == calls_before


def test_existing_watch_is_adopted_and_not_deleted(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    """An existing watch is used and not deleted with the page; a watch of ours that was not recorded is adopted."""
    fake_changedetection.add(URL)
    fake_changedetection.tags["millrace"] = "22222222-2222-4222-8222-222222222222"
    fake_changedetection.add("https://example.org/ours", tags=[fake_changedetection.tags["millrace"]])
    desk.put("The heron.", url=URL, source="crawl")
    desk.put("The mill.", url="https://example.org/ours", source="crawl")
    assert _sync() == {"made": 0, "known": 2, "removed": 0, "failed": 0}
    rows = _rows(desk.db)
    assert (rows[URL].is_ours, rows["https://example.org/ours"].is_ours) == (False, True)
    for row in rows.values():
        desk.db.transaction(catalog.delete, TENANT, str(row.document_id))
    assert _sync() == {"made": 0, "known": 0, "removed": 2, "failed": 0}
    assert [watch["url"] for watch in fake_changedetection.watches.values()] == [URL]
    assert _rows(desk.db) == {}


def test_request_of_a_user_overrides_the_automatic_choice(
    desk: Desk, fake_changedetection: FakeChangeDetection
) -> None:
    """A page is watched on demand whatever its source; once unwatched, it is not watched automatically."""
    page = desk.put("The heron.", url=URL, source="api")["document_id"]
    desk.db.transaction(lambda session: watches.want(session, session.get_one(Document, int(page))))
    assert _sync()["made"] == 1
    fake_changedetection.watches.clear()  # removed by a user there
    desk.db.transaction(watches.unwant, TENANT, int(page))
    assert _sync()["removed"] == 1
    assert _rows(desk.db)[URL].state == "removed"
    auto = desk.put("The mill.", url="https://example.org/auto", source="crawl")["document_id"]
    assert _sync()["made"] == 1
    desk.db.transaction(watches.unwant, TENANT, int(auto))
    assert _sync()["removed"] == 1 and fake_changedetection.watches == {}
    assert _sync() == {"made": 0, "known": 0, "removed": 0, "failed": 0}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_makes_no_second_watch(
    desk: Desk, fake_changedetection: FakeChangeDetection, when: str
) -> None:
    """After a crash before the watch exists, or before it is recorded, the next run ends with one watch."""
    desk.put("The heron.", url=URL, source="crawl")
    fake_changedetection.drops = when
    job = desk.db.transaction(lambda session: _enqueue(session))
    [row] = jobs.drain()
    assert (row.id, row.state) == (job, "retrying")
    fake_changedetection.drops = None
    assert jobs.drain(later=True)[-1].state == "succeeded"
    assert len(fake_changedetection.watches) == 1 and _rows(desk.db)[URL].state == "present"


def _enqueue(session: Any) -> str:
    from app.jobs.ledger.enqueue import enqueue

    return enqueue(session, SyncWatches(), tenant=TENANT).id


def test_a_page_that_cannot_be_watched_fails_alone(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    fake_changedetection.refuses = {"https://example.org/odd"}
    desk.put("Odd.", url="https://example.org/odd", source="crawl")
    desk.put("The heron.", url=URL, source="crawl")
    assert _sync() == {"made": 1, "known": 0, "removed": 0, "failed": 1}
    row = _rows(desk.db)["https://example.org/odd"]
    assert row.state == "failed" and "Invalid or unsupported URL" in (row.error_message or "")
    assert _sync()["failed"] == 0  # not again at once


def test_wrong_key_fails_the_job_and_keeps_the_requests(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    fake_changedetection.key = "another"
    desk.put("The heron.", url=URL, source="crawl")
    desk.db.transaction(_enqueue)
    [row] = jobs.drain()
    assert (row.state, row.error_code) == ("failed", "changedetection_key")
    fake_changedetection.key = "key"
    assert _sync()["made"] == 1


def test_changes_without_a_notification_are_found(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    """The newest change starts a job and supersedes the others; the first snapshot is not a change."""
    desk.put("The heron.", url=URL, source="crawl")
    _sync()
    [watch] = fake_changedetection.watches.values()
    first = int(_rows(desk.db)[URL].created_at.timestamp()) + 1
    fake_changedetection.history[watch["uuid"]] = [first]
    watch["last_changed"] = 0
    assert jobs.run_inline(ReconcileChanges()).result == {"watches": 1, "changes": 0, "lost": 0}
    fake_changedetection.history[watch["uuid"]] = [first, first + 10, first + 20]
    watch["last_changed"], watch["last_error"] = first + 20, "404 Page not found"
    assert jobs.run_inline(ReconcileChanges()).result == {"watches": 1, "changes": 2, "lost": 0}
    assert [(event.history_key, event.state, event.origin) for event in _events(desk.db)] == [
        (first + 10, "superseded", "reconcile"), (first + 20, "queued", "reconcile"),
    ]  # fmt: skip
    assert _rows(desk.db)[URL].error_message == "404 Page not found"
    assert jobs.run_inline(ReconcileChanges()).result == {"watches": 1, "changes": 0, "lost": 0}
    kinds = desk.db.read(lambda session: session.scalars(sa.select(JobRow.kind)).all())
    assert kinds.count("sources.rescrape") == 1


def test_missing_watch_is_created_again(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    desk.put("The heron.", url=URL, source="crawl")
    _sync()
    fake_changedetection.watches.clear()
    assert jobs.run_inline(ReconcileChanges()).result == {"watches": 1, "changes": 0, "lost": 1}
    assert _sync()["made"] == 1 and _rows(desk.db)[URL].state == "present"


def test_page_removed_during_the_creation_has_no_watch(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    page = int(desk.put("The heron.", url=URL, source="crawl")["document_id"])
    fake_changedetection.on_create = lambda: desk.db.transaction(watches.unwant, TENANT, page)
    _sync()
    fake_changedetection.on_create = lambda: None
    _sync()
    assert fake_changedetection.watches == {} and _rows(desk.db)[URL].state == "removed"


@pytest.mark.parametrize("how", ["deleted", "unwanted"])
def test_unrecorded_watch_is_deleted_with_its_page(
    desk: Desk, fake_changedetection: FakeChangeDetection, how: str
) -> None:
    """After a crash the page is unwatched before the next run: our watch is deleted, another's stays."""
    page = int(desk.put("The heron.", url=URL, source="crawl")["document_id"])
    fake_changedetection.drops = "after"
    desk.db.transaction(_enqueue)
    jobs.drain()
    fake_changedetection.drops = None
    assert len(fake_changedetection.watches) == 1
    others = fake_changedetection.add(URL)
    if how == "deleted":
        desk.db.transaction(catalog.delete, TENANT, str(page))
    else:
        desk.db.transaction(watches.unwant, TENANT, page)
    jobs.drain(later=True)
    assert list(fake_changedetection.watches) == [others]


def test_removed_watch_is_deleted_with_its_page(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    page = int(desk.put("The heron.", url=URL, source="crawl")["document_id"])
    _sync()
    desk.db.transaction(watches.unwant, TENANT, page)
    _sync()
    desk.db.transaction(catalog.delete, TENANT, str(page))
    _sync()
    assert _rows(desk.db) == {}


def test_deleted_page_is_not_restored_by_a_change(desk: Desk, fake_changedetection: FakeChangeDetection) -> None:
    page = desk.put("The heron.", url=URL, source="crawl")["document_id"]
    _sync()
    [watch] = fake_changedetection.watches
    earlier = desk.db.transaction(_record_change, watch, 1)
    desk.db.transaction(catalog.delete, TENANT, page)
    late = desk.db.transaction(_record_change, watch, 2)
    assert (earlier.state, late.state) == ("queued", "ignored")


def _record_change(session: Any, watch: str, key: int) -> ChangeEvent:
    change = PageChange(URL, watch, key, clock.now(), None, "", None)
    return changes.record(session, TENANT, change, origin="webhook")
