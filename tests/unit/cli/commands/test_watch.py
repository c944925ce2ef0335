"""`millrace watch`: add, list, remove and synchronise watches, and show the template."""

from __future__ import annotations

import pytest

from app.jobs import testing as jobs
from tests.fakes.changedetection import FakeChangeDetection
from tests.fakes.site import FakeSite, page
from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAGE = b"<html><head><title>heron</title></head><body><p>The heron stands in a paragraph of text.</p></body></html>"


def test_a_watch_is_added_listed_and_removed(
    web_api: Api, site: FakeSite, changedetection: FakeChangeDetection
) -> None:
    terminal = Terminal(web_api.url)
    site.pages["/a"] = page(PAGE)
    url = f"{site.url}/a"
    assert "wanted" in terminal("watch", "add", url).out
    jobs.drain()
    [watched] = terminal("watch", "list", "--json").json["data"]
    assert (watched["url"], watched["state"], watched["is_ours"]) == (url, "present", True)
    assert watched["watch_id"] in changedetection.watches and url in terminal("watch", "list", "--state", "present").out
    shown = terminal("watch", "template")
    assert "jsons://millrace.example/api/webhook/changedetection?" in shown.out and "watch_uuid|tojson" in shown.out
    assert terminal("watch", "template", "--json").json["notification_format"] == "text"
    assert terminal("watch", "remove", url, "--json").json["watch"]["state"] == "unwanted"
    jobs.drain()
    assert changedetection.watches == {}
    assert [row["state"] for row in terminal("watch", "list", "--json").json["data"]] == ["removed"]
    assert terminal("watch", "remove", "https://example.org/never").code == 4
    assert terminal("watch", "remove", watched["document_id"]).code == 4
    assert terminal("watch", "sync", "--json").json["kind"] == "sources.sync_watches"
