"""robots.txt is requested once, read by RFC 9309, and obeyed by jobs."""

from __future__ import annotations

import asyncio

import pytest
import redis as redis_py

from app.core.errors import Rejected, Unavailable
from app.sources.fetching import robots
from app.sources.fetching.page_text import NotModified, PageText
from app.sources.fetching.polite_fetch import fetch_politely
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv

ROBOTS = """\ufeff# ours
User-agent: *
Disallow: /private
Allow: /private/open
Crawl-delay: 0.1
User-agent: millrace
User-agent: other
Disallow: /not-for-millrace
Disallow: /*.cgi$
Crawl-delay: 0.2
Sitemap: /maps/one.xml
Sitemap: https://elsewhere.example/two.xml
"""
TEXT = {"content-type": "text/plain"}


@pytest.fixture(params=["redis", "alone"])
def robots_site(request: pytest.FixtureRequest, settings_env: SettingsEnv, site: FakeSite) -> FakeSite:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else "redis://127.0.0.1:1/0"
    settings_env(redis_url=url, fetch_private="true", fetch_host_delay_s=0, fetch_timeout_s=2)
    return site


def _allowed(url: str) -> bool:
    return asyncio.run(robots.allows(url))


def _paths(site: FakeSite) -> list[str]:
    return [path for path, _ in site.visits]


def test_group_of_our_user_agent_is_applied(robots_site: FakeSite) -> None:
    robots_site.pages["/robots.txt"] = site_page(ROBOTS.encode(), headers=TEXT)
    for path, expected in (
        ("/", True), ("/private", True), ("/not-for-millrace/x", False), ("/a.cgi", False), ("/a.cgi?x", True),
        ("/robots.txt", True),
    ):  # fmt: skip
        assert _allowed(robots_site.url + path) is expected, path
    assert asyncio.run(robots.crawl_delay(robots_site.url)) == 0.2
    maps = asyncio.run(robots.sitemaps(robots_site.url))
    assert maps == [f"{robots_site.url}/maps/one.xml", "https://elsewhere.example/two.xml"]
    assert _paths(robots_site) == ["/robots.txt"], "asked once"


def test_other_user_agent_uses_its_group(robots_site: FakeSite, settings_env: SettingsEnv) -> None:
    settings_env(fetch_user_agent="Mozilla/5.0 (compatible; Gleaner/1.0)")
    robots_site.pages["/robots.txt"] = site_page(ROBOTS.encode(), headers=TEXT)
    assert not _allowed(f"{robots_site.url}/private") and _allowed(f"{robots_site.url}/private/open")
    assert _allowed(f"{robots_site.url}/not-for-millrace")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_missing_robots_txt_allows_everything(robots_site: FakeSite, status: int) -> None:
    robots_site.pages["/robots.txt"] = site_page(b"User-agent: *\nDisallow: /", status)
    assert _allowed(f"{robots_site.url}/any")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_unavailable_robots_txt_allows_nothing(robots_site: FakeSite, status: int) -> None:
    """It is not requested again for each page."""
    robots_site.pages["/robots.txt"] = site_page(status=status)
    for _ in range(2):
        with pytest.raises(Unavailable) as wait:
            _allowed(f"{robots_site.url}/any")
        assert wait.value.code == "robots_unavailable" and wait.value.retry_after_s == robots.RETRY_S
    assert _paths(robots_site) == ["/robots.txt"]


def test_unreachable_robots_txt_is_unavailable(robots_site: FakeSite) -> None:
    with pytest.raises(Unavailable):
        _allowed("http://127.0.0.1:9/")


def test_redirected_malformed_and_long_robots_txt(robots_site: FakeSite) -> None:
    """Bytes beyond 500 KiB are ignored, and bytes that cannot be decoded affect only their line."""
    body = b"User-agent: *\nDisallow: /\xff\nDisallow: /no\n" + b"# filler\n" * 60_000 + b"Disallow: /far\n"
    robots_site.pages["/robots.txt"] = site_page(status=301, headers={"location": "/there.txt"})
    robots_site.pages["/there.txt"] = site_page(body, headers=TEXT)
    assert not _allowed(f"{robots_site.url}/no") and _allowed(f"{robots_site.url}/far")


def test_circular_redirect_is_a_missing_robots_txt(robots_site: FakeSite) -> None:
    robots_site.pages["/robots.txt"] = site_page(status=302, headers={"location": "/robots.txt"})
    assert _allowed(f"{robots_site.url}/any")


def test_cached_robots_txt_expires(redis_url: str, settings_env: SettingsEnv, site: FakeSite) -> None:
    settings_env(redis_url=redis_url, fetch_private="true")
    asyncio.run(robots.allows(f"{site.url}/"))
    with redis_py.Redis.from_url(redis_url) as client:
        (key,) = client.keys("mr:robots:*")
        assert 3500 < client.ttl(key) <= 3600


def test_polite_fetch_applies_robots_txt(robots_site: FakeSite) -> None:
    """The target of a redirect is checked too."""
    robots_site.pages["/robots.txt"] = site_page(ROBOTS.encode(), headers=TEXT)
    robots_site.pages["/open"] = site_page(b"open", headers={**TEXT, "etag": '"x"'})
    robots_site.pages["/over"] = site_page(status=302, headers={"location": "/not-for-millrace"})
    page = asyncio.run(fetch_politely(f"{robots_site.url}/open"))
    assert page.text == "open"
    for path in ("/not-for-millrace", "/over"):
        with pytest.raises(Rejected) as refused:
            asyncio.run(fetch_politely(robots_site.url + path))
        assert refused.value.code == "robots"
    assert "/not-for-millrace" not in _paths(robots_site)
    assert robots_site.requests[1].begun_at - robots_site.requests[0].ended_at < 0.2, "robots.txt and page in one turn"


def test_polite_fetch_may_ignore_robots_txt(robots_site: FakeSite, settings_env: SettingsEnv) -> None:
    settings_env(fetch_robots="off")
    robots_site.pages["/robots.txt"] = site_page(b"User-agent: *\nDisallow: /", headers=TEXT)
    robots_site.pages["/open"] = site_page(b"open", headers=TEXT)
    page: PageText | NotModified = asyncio.run(fetch_politely(f"{robots_site.url}/open"))
    assert isinstance(page, PageText) and _paths(robots_site) == ["/open"]


def test_retry_after_pauses_the_host(robots_site: FakeSite) -> None:
    """The next job waits too."""
    robots_site.pages["/busy"] = site_page(status=429, headers={"retry-after": "1"})
    robots_site.pages["/open"] = site_page(b"open", headers=TEXT)
    with pytest.raises(Unavailable):
        asyncio.run(fetch_politely(f"{robots_site.url}/busy"))
    asyncio.run(fetch_politely(f"{robots_site.url}/open"))
    before, after = robots_site.requests[-2:]
    assert after.begun_at - before.ended_at > 0.9
