"""An api with a secret for webhooks and a fake changedetection.io."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.main import create_app
from tests.fakes.changedetection import FakeChangeDetection
from tests.fakes.site import site
from tests.support.databases import SettingsEnv
from tests.unit.api.conftest import Api, served

__all__ = ["site"]

WEBHOOK_SECRET = "a-secret-of-tests-0123456789-abcdef"


@pytest.fixture
def changedetection() -> Iterator[FakeChangeDetection]:
    with FakeChangeDetection().running() as server:
        yield server


@pytest.fixture
def web_api(
    sqlite_url: str, redis_url: str, settings_env: SettingsEnv, changedetection: FakeChangeDetection
) -> Iterator[Api]:
    settings_env(
        database_url=sqlite_url, redis_url=redis_url, fetch_private="true", fetch_host_delay_s=0,
        fetch_javascript="off", webhook_secret=WEBHOOK_SECRET, changedetection_url=changedetection.url,
        changedetection_api_key="key", auto_watch_per_minute=100_000, url="https://millrace.example",
    )  # fmt: skip
    with served(create_app()) as running:
        yield running


@pytest.fixture
def send_page(web_api: Api) -> Callable[[str], httpx.Response]:
    """Return a function that delivers one crawled page, signed as Firecrawl signs."""

    def send(url: str) -> httpx.Response:
        page: dict[str, Any] = {"markdown": "The heron stands.", "metadata": {"url": url, "statusCode": 200}}
        body = json.dumps({"success": True, "type": "crawl.page", "id": "c-1", "data": [page]}).encode()
        signature = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-firecrawl-signature": f"sha256={signature}"}
        return web_api.anyone.post("/api/webhook/firecrawl", content=body, headers=headers)

    return send
