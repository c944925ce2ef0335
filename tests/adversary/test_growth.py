"""A6: whatever a stranger can make grow has a bound."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis as redis_py
import sqlalchemy as sa

from app.core import clock
from app.core.db import Database, database
from app.core.network.addresses import network_of
from app.main import create_app
from app.metrics import requests
from app.metrics.models import RequestMetric
from app.metrics.requests import STRANGERS_AT_ONCE, RequestTiming, StrangerSample
from app.retention.sweep import delete_strangers, delete_surplus, delete_surplus_bytes
from app.sources.fetching import robots, robots_cache
from app.sources.models import CrawlSession, Delivery
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv
from tests.support.firecrawl_events import event, page, send
from tests.support.sender import SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api, lite_api, served

__all__ = ["lite_api", "site"]


def _rows(model: Any) -> int:
    return database().read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(model)) or 0)


def _recorded(api: Api) -> int:
    """Return the number of request rows, once a last request with a key is among them."""
    last = str(uuid.uuid4())
    assert api.client.get("/api/kinds", headers={"X-Request-ID": last}).status_code == 200
    query = sa.select(sa.func.count()).where(RequestMetric.request_id == last)
    wait_until(lambda: database().read(lambda session: session.scalar(query)) == 1, what="the last request's row")
    return _rows(RequestMetric)


@pytest.mark.parametrize("ask", ["unmatched", "without a key", "with a wrong key", "a webhook", "documentation"])
def test_requests_of_strangers_are_few_rows(lite_api: Api, ask: str) -> None:
    calls: dict[str, Callable[[int], object]] = {
        "unmatched": lambda number: lite_api.anyone.get(f"/wp-admin/{number}.php"),
        "without a key": lambda number: lite_api.anyone.get(f"/api/jobs/{number}"),
        "with a wrong key": lambda number: lite_api.anyone.get(
            "/api/jobs", headers={"Authorization": f"Bearer {number}"}
        ),
        "a webhook": lambda number: lite_api.anyone.post("/api/webhook/firecrawl", content=b"%d" % number),
        "documentation": lambda number: lite_api.anyone.get(f"/?{number}"),
    }
    for number in range(3 * STRANGERS_AT_ONCE):
        calls[ask](number)
    assert 1 < _recorded(lite_api) <= STRANGERS_AT_ONCE + 6


def test_requests_with_a_key_are_all_recorded(lite_api: Api) -> None:
    for _ in range(STRANGERS_AT_ONCE):
        lite_api.anyone.get("/none")
    before = _recorded(lite_api)
    for _ in range(STRANGERS_AT_ONCE + 20):
        assert lite_api.client.get("/api/me").status_code == 200
    assert _recorded(lite_api) == before + STRANGERS_AT_ONCE + 21


def test_a_sample_is_small_for_ever(settings_env: SettingsEnv) -> None:
    sample = StrangerSample()
    taken = sum(sample.take() for _ in range(100_000))
    assert STRANGERS_AT_ONCE <= taken <= STRANGERS_AT_ONCE + 3


def _random_rules(seed: int, size: int) -> str:
    dice = random.Random(seed)
    lines = ["User-agent: *"]
    while sum(map(len, lines[-50:])) * len(lines) / 50 < size:
        lines += [f"Disallow: /{dice.randbytes(20).hex()}" for _ in range(50)]
    return "\n".join(lines)


def test_the_robots_files_of_many_sites_stay_within_the_bound_of_redis(
    redis_url: str, settings_env: SettingsEnv
) -> None:
    settings_env(redis_url=redis_url)
    client = redis_py.Redis.from_url(redis_url)
    for number in range(60):
        size = 450_000 if number % 3 == 0 else 20_000
        robots_cache.store(f"https://{number}.example:443", "=" + _random_rules(number, size), 3600)
    assert client.info("memory")["used_memory_dataset"] < 60 * 1.5 * robots_cache.MAX_VALUE_CHARACTERS
    for number in range(robots_cache.MAX_SITES + 30):
        robots_cache.store(f"https://small-{number}.example:443", f"={number}", 3600)
    keys = list(client.scan_iter("mr:robots*", count=1000))
    assert len(keys) == robots_cache.MAX_SITES + 1
    assert robots_cache.read("https://small-0.example:443") is None
    assert robots_cache.read("https://small-1029.example:443") == "=1029"
    assert robots_cache._held.size_bytes <= robots_cache.MAX_HELD_BYTES
    assert all(client.ttl(key) > 0 for key in keys)


def test_a_large_robots_file_is_obeyed_and_read_once(redis_url: str, settings_env: SettingsEnv, site: FakeSite) -> None:
    settings_env(redis_url=redis_url, fetch_private="true", fetch_timeout_s=5)
    body = f"User-agent: *\nDisallow: /secret\n{_random_rules(1, 450_000)}".encode()[:480_000]
    site.pages["/robots.txt"] = site_page(body, headers={"content-type": "text/plain"})
    for _ in range(3):
        assert not asyncio.run(robots.allows(f"{site.url}/secret"))
        assert asyncio.run(robots.allows(f"{site.url}/open"))
    assert [path for path, _ in site.visits] == ["/robots.txt"]
    assert redis_py.Redis.from_url(redis_url).dbsize() <= 1


def test_parsed_files_are_held_up_to_a_size() -> None:
    cache: robots_cache.BoundedCache[str] = robots_cache.BoundedCache(100)
    for number in range(50):
        cache.put(str(number), "x", 10, 60)
        assert cache.size_bytes <= 100
    assert cache.get("49") == "x" and cache.get("0") is None
    cache.put("49", "large", 101, 60)
    assert cache.get("49") is None and cache.size_bytes == 90


def test_events_of_unknown_crawls_do_not_fill_a_row(sqlite_url: str, settings_env: SettingsEnv, redis_url: str) -> None:
    settings_env(database_url=sqlite_url, redis_url=redis_url, webhook_secret=SECRET)
    with served(create_app()) as api:
        for number in range(40):
            metadata = {f"key-{number}-{inner}": "x" * 1000 for inner in range(5)}
            send(api, event("crawl.page", page(f"https://example.org/{number}"), crawl="c-1", metadata=metadata))
        extra = database().read(lambda session: session.scalars(sa.select(CrawlSession.extra)).one())
    assert 0 < len(str(extra)) <= 17_000


def _timing(number: int, *, tenant: str | None, status: int = 404, days: int = 0) -> RequestTiming:
    at = clock.now() - timedelta(days=days)
    return RequestTiming(at, tenant, "GET", f"/{number}", "unmatched", status, 1.0, str(number), None)


def test_refused_requests_of_strangers_are_kept_for_a_week(db: Database) -> None:
    old = [
        _timing(1, tenant=None, days=8),
        _timing(2, tenant="default", days=8),
        _timing(3, tenant=None, status=202, days=8),
    ]
    db.transaction(requests.write, [*old, _timing(4, tenant=None, days=6)])
    assert db.transaction(delete_strangers, clock.now() - timedelta(days=7)) == 1
    paths = db.read(lambda session: set(session.scalars(sa.select(RequestMetric.path))))
    assert {"/2", "/3", "/4"} <= paths and "/1" not in paths


def test_the_oldest_rows_beyond_a_number_are_deleted(db: Database) -> None:
    db.transaction(lambda session: session.execute(sa.delete(RequestMetric)))
    db.transaction(requests.write, [_timing(number, tenant=None) for number in range(30)])
    deleted = [
        db.transaction(delete_surplus, clock.now(), model=RequestMetric, max_rows=10, limit=15) for _ in range(3)
    ]
    assert deleted == [15, 5, 0]
    paths = db.read(lambda session: list(session.scalars(sa.select(RequestMetric.path).order_by(RequestMetric.id))))
    assert paths == [f"/{number}" for number in range(20, 30)]


def test_the_oldest_deliveries_beyond_a_size_are_deleted(db: Database) -> None:
    def put(session: Any) -> None:
        session.execute(sa.delete(Delivery))
        for number in range(10):
            session.add(
                Delivery(
                    tenant="default", source="firecrawl", event_type="crawl.page", digest=str(number), body="x",
                    size_bytes=100, outcome="accepted", answer={}, jobs=0, received_at=clock.now(),
                )
            )  # fmt: skip

    db.transaction(put)
    assert db.transaction(delete_surplus_bytes, clock.now(), max_bytes=350) == 7
    assert db.transaction(delete_surplus_bytes, clock.now(), max_bytes=350) == 0
    digests = db.read(lambda session: list(session.scalars(sa.select(Delivery.digest).order_by(Delivery.id))))
    assert digests == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x" * 500, "x" * 64),
    ],
)
def test_an_ipv6_network_is_one_caller(address: str, network: str) -> None:
    assert network_of(address) == network
