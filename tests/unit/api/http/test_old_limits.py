"""The old service's limits: how often its routes may be asked, in its words, and what has no limit but its size."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from app.core import clock
from app.main import create_app
from tests.support.api_keys import holder
from tests.support.databases import SettingsEnv
from tests.support.firecrawl_events import event, send
from tests.support.problems import assert_problem
from tests.support.sender import PATH, SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, served


@pytest.fixture
def limited(sqlite_url: str, redis_url: str, settings_env: SettingsEnv) -> Iterator[Api]:
    settings_env(database_url=sqlite_url, redis_url=redis_url, rate_limits="on", webhook_secret=SECRET)
    with served(create_app()) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/api/search", 50), ("POST", "/api/index", 1000), ("POST", "/api/test-index", 5),
        ("GET", "/api/stats", 100), ("GET", "/api/content/7", 100), ("GET", "/api/content/by-url", 100),
        ("GET", "/api/metrics/requests", 100), ("GET", "/api/metrics/operations", 100),
        ("GET", "/api/metrics/summary", 100), ("GET", "/api/metrics/crawls/c-1", 100),
    ],
)  # fmt: skip
def test_each_route_has_its_limit(limited: Api, method: str, path: str, limit: int) -> None:
    """Said in each answer, a refusal of the body included."""
    response = limited.client.request(method, path, content=b"{}" if method == "POST" else None)
    assert response.headers["ratelimit-policy"].endswith(f";q={limit};w=60")


@pytest.mark.parametrize(("path", "limit"), [("/api/test-index", 5), ("/api/search", 50)])
def test_request_over_the_limit_gets_the_old_error(limited: Api, path: str, limit: int) -> None:
    """Requests count before their bodies are checked, and each client is counted separately."""
    with holder(limited, "read", "write") as client:
        wait_until(lambda: clock.now().second < 50, timeout_s=30, what="a window with enough time left")
        codes = [client.post(path, json={"limit": 0}).status_code for _ in range(limit)]
        assert codes == [422] * limit
        refused = client.post(path, json={"limit": 0})
        assert_problem(refused, 429, "rate_limited")
        assert refused.json()["error"] == f"Rate limit exceeded: {limit} per 1 minute"
    assert limited.client.post(path, json={"limit": 0}).status_code == 422


def test_webhooks_have_a_size_limit_and_no_rate_limit(limited: Api) -> None:
    body = json.dumps(event("crawl.started")).encode()
    answers = [send(limited, body) for _ in range(130)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in answer.headers for answer in answers)
    refused = limited.anyone.post(PATH, content=b"x" * 70 * 1024 * 1024)
    assert_problem(refused, 413, "body_too_large")
    for other in ("/api/webhook/changedetection", "/api/index"):
        assert_problem(limited.client.post(other, content=b"x" * 11 * 1024 * 1024), 413, "body_too_large")
