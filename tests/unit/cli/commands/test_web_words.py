"""`millrace crawl`, `watch` and `deliveries`, over HTTP alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import actors.documents
import actors.sources  # noqa: F401  the functions that drain() runs
from app.jobs import testing as jobs
from app.main import create_app
from tests.fakes.changedetection import FakeChangeDetection
from tests.fakes.site import FakeSite, site
from tests.support.databases import SettingsEnv
from tests.support.firecrawl_events import event, send
from tests.support.firecrawl_events import page as event_page
from tests.support.sender import SECRET
from tests.unit.api.conftest import Api, served
from tests.unit.api.routes.web.test_crawls import html
from tests.unit.cli.commands.test_keys import Terminal

__all__ = ["site"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def there() -> Iterator[FakeChangeDetection]:
    with FakeChangeDetection().running() as player:
        yield player


@pytest.fixture
def api(sqlite_url: str, redis_url: str, settings_env: SettingsEnv, there: FakeChangeDetection) -> Iterator[Api]:
    settings_env(
        database_url=sqlite_url, redis_url=redis_url, fetch_private="true", fetch_host_delay_s=0,
        fetch_javascript="off", webhook_secret=SECRET, changedetection_url=there.url, changedetection_api_key="key",
        auto_watch_per_minute=100_000, url="https://millrace.example",
    )  # fmt: skip
    with served(create_app()) as running:
        yield running


def test_a_crawl_is_started_and_shown(api: Api, site: FakeSite) -> None:
    terminal = Terminal(api)
    site.pages["/"] = html("start", "/a", "/missing")
    site.pages["/a"] = html("heron")
    command = ("crawl", "start", f"{site.url}/", "--sitemap", "skip", "--engine", "builtin", "--tag", "x", "--json")
    crawl = terminal(*command, "--exclude", "/b*").json
    payload = api.client.get(f"/api/jobs/{crawl['id']}").json()["payload"]
    assert (payload["exclude"], payload["tags"]) == (["/b*"], ["x"])
    jobs.drain()
    shown = terminal("crawl", "show", crawl["id"])
    assert shown.code == 0 and "completed" in shown.out and "2 indexed, 1 failed" in shown.out
    assert "/missing" in shown.out and "404" in shown.out
    [listed] = terminal("crawl", "list", "--json").json["data"]
    assert (listed["crawl_id"], listed["status"], listed["pages_indexed"]) == (crawl["id"], "completed", 2)
    assert crawl["id"] in terminal("crawl", "list").out
    assert terminal("crawl", "show", "nobody").code == 4
    assert terminal("crawl", "start", "ftp://a.org").code == 2
    assert terminal("crawl", "start", f"{site.url}/", "--engine", "firecrawl").code != 0


def test_pages_are_watched_and_not(api: Api, site: FakeSite, there: FakeChangeDetection) -> None:
    terminal = Terminal(api)
    site.pages["/a"] = html("heron")
    url = f"{site.url}/a"
    assert "wanted" in terminal("watch", "add", url).out
    jobs.drain()
    [watched] = terminal("watch", "list", "--json").json["data"]
    assert (watched["url"], watched["state"], watched["is_ours"]) == (url, "present", True)
    assert watched["watch_id"] in there.watches and url in terminal("watch", "list", "--state", "present").out
    shown = terminal("watch", "template")
    assert "jsons://millrace.example/api/webhook/changedetection?" in shown.out and "watch_uuid|tojson" in shown.out
    assert terminal("watch", "template", "--json").json["notification_format"] == "text"
    assert terminal("watch", "remove", url, "--json").json["watch"]["state"] == "unwanted"
    jobs.drain()
    assert there.watches == {}
    assert [one["state"] for one in terminal("watch", "list", "--json").json["data"]] == ["removed"]
    assert terminal("watch", "remove", "https://example.org/never").code == 4
    assert terminal("watch", "remove", watched["document_id"]).code == 4
    assert terminal("watch", "sync", "--json").json["kind"] == "sources.sync_watches"


def test_deliveries_are_listed_shown_and_done_again(api: Api) -> None:
    terminal = Terminal(api)
    send(api, event("crawl.page", event_page("https://a.org/1")))
    [listed] = terminal("deliveries", "list", "--source", "firecrawl", "--json").json["data"]
    assert "crawl.page" in terminal("deliveries", "list").out
    assert '"https://a.org/1"' in terminal("deliveries", "show", listed["id"]).out
    assert terminal("deliveries", "replay", listed["id"], "--json").json["answer"]["queued_jobs"] == 1
    assert terminal("deliveries", "replay", listed["id"]).out.startswith("202")
    assert terminal("deliveries", "show", "999").code == 4
