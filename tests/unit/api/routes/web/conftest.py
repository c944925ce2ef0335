"""An API that crawls, and a Firecrawl for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.main import create_app
from tests.fakes.firecrawl import FakeFirecrawl
from tests.support.databases import SettingsEnv
from tests.support.sender import SECRET
from tests.unit.api.conftest import Api, served


@pytest.fixture
def lite(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    settings_env(
        database_url=sqlite_url, redis_url=redis_url, fetch_private="true", fetch_host_delay_s=0,
        fetch_javascript="off", webhook_secret=SECRET, retry_delays="1,1", crawl_retry_delays="0.1,0.2",
    )  # fmt: skip
    with served(create_app()) as running:
        yield running


@pytest.fixture
def remote() -> Iterator[FakeFirecrawl]:
    server = FakeFirecrawl()
    with server.running():
        yield server


@pytest.fixture
def with_remote(app_env: SettingsEnv, remote: FakeFirecrawl) -> Iterator[Api]:
    app_env(webhook_secret=SECRET, retry_delays="1,1", firecrawl_url=remote.url)
    with served(create_app()) as running:
        yield running
