"""Crawls whose events got lost are asked after, and closed as they ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.core import clock
from app.jobs import testing as jobs
from app.sources.crawls.jobs import CheckCrawls
from tests.fakes.firecrawl import CRAWL, FakeFirecrawl
from tests.support.firecrawl_events import event, send
from tests.unit.api.conftest import Api


def _check(later_h: float = 1) -> dict[str, Any]:
    shift = clock.shifted()
    try:
        clock.shift(shift + timedelta(hours=later_h))
        row = jobs.run_inline(CheckCrawls())
    finally:
        clock.shift(shift)
    assert row.result is not None
    return row.result


def test_crawl_without_recent_events_is_checked(with_remote: Api, remote: FakeFirecrawl) -> None:
    """Its end and four of five pages were never told: they are fetched, once, and the crawl is closed."""
    send(with_remote, event("crawl.started", crawl=CRAWL))
    known = remote.pages[0]
    send(with_remote, event("crawl.page", known, crawl=CRAWL))
    assert jobs.run_inline(CheckCrawls()).result == {"checked": 0, "pages": 0, "closed": 0}  # it is young
    assert _check() == {"checked": 1, "pages": 4, "closed": 1}
    jobs.drain(later=True)
    view = with_remote.client.get(f"/api/metrics/crawls/{CRAWL}").json()
    assert (view["status"], view["success"], view["pages_indexed"], view["total_pages"]) == ("completed", True, 5, 5)
    assert _check() == {"checked": 0, "pages": 0, "closed": 0}


def test_check_fetches_missing_pages_of_a_completed_crawl(with_remote: Api, remote: FakeFirecrawl) -> None:
    send(with_remote, event("crawl.completed", crawl=CRAWL))
    assert _check() == {"checked": 1, "pages": 5, "closed": 0}
    assert _check() == {"checked": 0, "pages": 0, "closed": 0}


def test_crawl_unknown_to_firecrawl_fails_after_a_day(with_remote: Api, remote: FakeFirecrawl) -> None:
    send(with_remote, event("crawl.started", crawl="gone"))
    assert _check(1) == {"checked": 1, "pages": 0, "closed": 0}
    assert _check(25) == {"checked": 1, "pages": 0, "closed": 1}
    view = with_remote.client.get("/api/metrics/crawls/gone").json()
    assert view["status"] == "failed" and "no longer has this crawl" in view["error_message"]


def test_crawl_without_firecrawl_fails_after_a_day(lite: Api) -> None:
    send(lite, event("crawl.started", crawl="gone"))
    assert _check(1)["closed"] == 0
    assert _check(25)["closed"] == 1
    assert "no event arrived for a day" in lite.client.get("/api/metrics/crawls/gone").json()["error_message"]
