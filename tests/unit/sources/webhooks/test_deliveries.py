"""Concurrent deliveries: pages of a crawl do not wait for each other, repeats do."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.core.db import Database, database
from app.documents.models import Document, DocumentVersion
from app.jobs.models import JobRow
from app.sources.models import CrawlSession, Delivery
from app.sources.webhooks import deliveries
from app.sources.webhooks.deliveries import DeliveryResponse
from app.sources.webhooks.handlers import FIRECRAWL
from app.tenants.models import Tenant
from tests.support.databases import SettingsEnv
from tests.support.sender import event, page_event


@pytest.fixture
def postgres_db(postgres_url: str, settings_env: SettingsEnv) -> Database:
    """SQLite has one writer at a time, so the test needs PostgreSQL."""
    settings_env(database_url=postgres_url, redis_url="redis://127.0.0.1:9/0")
    return database()


def _take(db: Database, body: bytes, then: Callable[[], object] = lambda: None) -> DeliveryResponse:
    """Store a delivery; call `then` before the commit."""
    delivery = asyncio.run(deliveries.receive("default", FIRECRAWL, body, None))

    def work(session: Session) -> DeliveryResponse:
        answered = deliveries.store(session, delivery)
        then()
        return answered

    return db.transaction(work)


def _held(db: Database, pool: ThreadPoolExecutor, body: bytes) -> tuple[Future[DeliveryResponse], threading.Event]:
    """Store a delivery and commit it when the event is set."""
    there, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        there.set()
        go_on.wait(20)

    taken = pool.submit(_take, db, body, hold)
    assert there.wait(20)
    return taken, go_on


def test_pages_of_a_crawl_do_not_wait_for_each_other(postgres_db: Database) -> None:
    _take(postgres_db, event("crawl.started", "c"))
    with ThreadPoolExecutor(2) as pool:
        first, go_on = _held(postgres_db, pool, page_event("c", 1))
        second = pool.submit(_take, postgres_db, page_event("c", 2))
        try:
            assert second.result(10).status == 202 and not first.done()
        finally:
            go_on.set()
        assert first.result(10).status == 202


def test_concurrent_repeat_waits_and_gets_the_first_answer(postgres_db: Database) -> None:
    _take(postgres_db, event("crawl.started", "c"))
    with ThreadPoolExecutor(2) as pool:
        first, go_on = _held(postgres_db, pool, page_event("c", 1))
        repeat = pool.submit(_take, postgres_db, page_event("c", 1))
        go_on.set()
        assert repeat.result(10).body == first.result(10).body
    counts = [
        postgres_db.read(lambda session, table=table: session.scalar(sa.select(sa.func.count()).select_from(table)))  # type: ignore[misc]
        for table in (JobRow, CrawlSession, Delivery)
    ]
    assert counts == [1, 1, 2]


def test_the_first_events_of_a_crawl_make_it_once(db: Database, settings_env: SettingsEnv) -> None:
    settings_env(redis_url="redis://127.0.0.1:9/0")
    db = database()
    bodies = [page_event("c", number) for number in range(8)] + [event("crawl.completed", "c")]
    with ThreadPoolExecutor(9) as pool:
        statuses = [answered.status for answered in pool.map(lambda body: _take(db, body), bodies)]
    assert statuses == [202] * 8 + [200]
    rows = db.read(lambda session: session.execute(sa.select(CrawlSession.crawl_id, CrawlSession.state)).all())
    assert [tuple(row) for row in rows] == [("c", "completed")]


def test_refused_page_stores_nothing_and_does_not_block_others(db: Database, settings_env: SettingsEnv) -> None:
    """A page over the quota and one with an invalid URL, each with a page that is accepted."""
    settings_env(redis_url="redis://127.0.0.1:9/0")
    db = database()
    good, bad, over = (json.loads(page_event("c", number))["data"][0] for number in range(3))
    bad["metadata"]["url"] = "http://[none"
    answered = _take(db, event("crawl.page", "c", bad, good))
    assert (answered.jobs, [failure["url"] for failure in answered.failures]) == (1, ["http://[none"])
    db.transaction(lambda session: setattr(session.get_one(Tenant, "default"), "max_documents", 1))
    answered = _take(db, event("crawl.page", "c", over, {**good, "markdown": "Other words."}))
    assert (answered.jobs, [failure["url"] for failure in answered.failures]) == (1, [over["metadata"]["url"]])
    count = sa.func.count()
    for table, expected_count in ((Document, 1), (DocumentVersion, 2), (JobRow, 2)):
        query = sa.select(count).select_from(table)
        assert db.read(lambda session, query=query: session.scalar(query)) == expected_count  # type: ignore[misc]
