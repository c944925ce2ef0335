"""Pages of a site that a test crawls, and what a crawl of it says afterwards."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from app.core.db import database
from app.sources.models import CrawlPage
from tests.fakes.server import Response
from tests.fakes.site import page as site_page
from tests.support.desk import Desk
from tests.unit.api.conftest import Api


def html(word: str, *links: str, head: str = "") -> Response:
    anchors = "".join(f'<a href="{link}">more</a> ' for link in links)
    text = f"<p>The {word} stands here for long enough to be a text of its own, which somebody may look for.</p>"
    return site_page(
        f"<html><head><title>{word}</title>{head}</head><body><main>{text}{anchors}</main></body></html>".encode()
    )


def start(api: Api, url: str, **more: Any) -> dict[str, Any]:
    answer = api.client.post("/api/crawls", json={"url": url, "engine": "builtin", "sitemap": "skip", **more})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert job["crawl_id"] == job["id"] and answer.headers["location"] == f"/api/jobs/{job['id']}"
    return job


def metrics(api: Api, crawl: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = api.client.get(f"/api/metrics/crawls/{crawl['crawl_id']}?include_per_page=true").json()
    return body


def rows(crawl: dict[str, Any]) -> dict[str, CrawlPage]:
    query = sa.select(CrawlPage).where(CrawlPage.crawl_id == crawl["id"])
    return {
        row.url.partition("//")[2].partition("/")[2]: row
        for row in database().read(lambda session: session.scalars(query).all())
    }


def words() -> set[str]:
    return {hit["title"] for hit in Desk(database()).find("stands", mode="keyword", limit=50)["results"]}
