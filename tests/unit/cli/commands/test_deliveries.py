"""`millrace deliveries`: list, show and replay deliveries."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_deliveries_are_listed_shown_and_replayed(web_api: Api, send_page: Callable[[str], httpx.Response]) -> None:
    terminal = Terminal(web_api.url)
    send_page("https://a.org/1")
    [listed] = terminal("deliveries", "list", "--source", "firecrawl", "--json").json["data"]
    assert "crawl.page" in terminal("deliveries", "list").out
    assert '"https://a.org/1"' in terminal("deliveries", "show", listed["id"]).out
    assert terminal("deliveries", "replay", listed["id"], "--json").json["answer"]["queued_jobs"] == 1
    assert terminal("deliveries", "replay", listed["id"]).out.startswith("202")
    assert terminal("deliveries", "show", "999").code == 4
