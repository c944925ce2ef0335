"""`millrace crawl`: start, show and list crawls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.jobs import testing as jobs
from tests.fakes.server import Response
from tests.fakes.site import FakeSite, page
from tests.support.command import Ran
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def _page(title: str, *links: str) -> Response:
    anchors = "".join(f'<a href="{link}">more</a> ' for link in links)
    text = f"<p>The {title} stands here, in a paragraph that is long enough to count as the text of a page.</p>"
    return page(f"<html><head><title>{title}</title></head><body><main>{text}{anchors}</main></body></html>".encode())


def test_a_crawl_is_started_and_shown(web_api: Api, site: FakeSite) -> None:
    terminal = Terminal(web_api.url)
    site.pages["/"] = _page("start", "/a", "/missing")
    site.pages["/a"] = _page("heron")
    command = ("crawl", "start", f"{site.url}/", "--sitemap", "skip", "--engine", "builtin", "--tag", "x", "--json")
    crawl = terminal(*command, "--exclude", "/b*").json
    payload = web_api.client.get(f"/api/jobs/{crawl['id']}").json()["payload"]
    assert (payload["exclude"], payload["tags"]) == (["/b*"], ["x"])
    jobs.drain()
    shown = terminal("crawl", "show", crawl["id"])
    assert shown.code == 0 and "completed" in shown.out and "2 indexed, 1 failed" in shown.out
    assert "/missing" in shown.out and "404" in shown.out
    [listed] = terminal("crawl", "list", "--json").json["data"]
    assert (listed["crawl_id"], listed["status"], listed["pages_indexed"]) == (crawl["id"], "completed", 2)
    assert crawl["id"] in terminal("crawl", "list").out
    assert terminal("crawl", "show", "unknown").code == 4
    assert terminal("crawl", "start", "ftp://a.org").code == 2
    assert terminal("crawl", "start", f"{site.url}/", "--engine", "firecrawl").code != 0


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize("failed", [True, False])
def test_waiting_for_a_crawl_tells_if_a_page_failed(
    web_api: Api, site: FakeSite, failed: bool, more: tuple[str, ...]
) -> None:
    """By the exit code, although the crawl itself succeeds."""
    terminal = Terminal(web_api.url)
    site.pages["/"] = _page("start", *(["/missing"] if failed else []))
    command = ("crawl", "start", f"{site.url}/", "--sitemap", "skip", "--engine", "builtin", "--wait", *more)
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(terminal, *command)
        wait_until(lambda: bool(jobs.drain()) or ran.done(), timeout_s=60, what="the crawl to start")
        ended: Ran = ran.result(60)
    assert ended.code == (1 if failed else 0), ended
    assert ("/missing" in ended.out) == (failed and not more)
