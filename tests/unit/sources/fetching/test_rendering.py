"""Scripts run if a page has almost no text without them and Chromium is installed."""

from __future__ import annotations

import asyncio
import os

import pytest

from app.clients.browser import find_chromium
from app.sources.fetching.page_text import PageText
from app.sources.fetching.polite_fetch import fetch_politely
from tests.fakes.site import FakeSite
from tests.fakes.site import page as site_page
from tests.support.databases import SettingsEnv
from tests.support.services import missing

MADE = "document.getElementById('app').textContent = 'made here'"
EMPTY = f"<html><body><div id=app></div><script>{MADE}</script></body></html>"
FULL = f"<html><body><p id=app>{'The wheel turns in the water. ' * 20}</p><script>{MADE}</script></body></html>"
TYPE = {"content-type": "text/html", "etag": '"1"'}


@pytest.fixture
def chromium_settings(settings_env: SettingsEnv, redis_url: str, site: FakeSite) -> SettingsEnv:
    if find_chromium() is None:
        missing("chromium", "apt-get install chromium")
    sandbox = str(os.getuid() != 0).lower()
    settings_env(redis_url=redis_url, fetch_private="true", fetch_host_delay_s=0, chromium_sandbox=sandbox)
    site.pages["/empty"] = site_page(EMPTY.encode(), headers=TYPE)
    site.pages["/full"] = site_page(FULL.encode(), headers=TYPE)
    site.pages["/short"] = site_page(b"<html><body>no scripts</body></html>", headers=TYPE)
    return settings_env


def _visit(url: str) -> PageText:
    return asyncio.run(fetch_politely(url))


def test_only_empty_pages_are_opened(chromium_settings: SettingsEnv, site: FakeSite) -> None:
    """The server's validators do not cover content that scripts fetch, so they are not stored."""
    page = _visit(f"{site.url}/empty")
    assert page.rendered and ">made here</div>" in page.text and page.etag is None
    for path in ("/full", "/short"):
        page = _visit(site.url + path)
        assert not page.rendered and page.etag == '"1"'


@pytest.mark.parametrize(("when", "empty", "full"), [("off", False, False), ("always", True, True)])
def test_or_all_or_none(chromium_settings: SettingsEnv, site: FakeSite, when: str, empty: bool, full: bool) -> None:
    chromium_settings(fetch_javascript=when)
    assert (_visit(f"{site.url}/empty").rendered, _visit(f"{site.url}/full").rendered) == (empty, full)


@pytest.mark.parametrize("program", ["/nowhere/chromium", "/bin/false"])
def test_without_a_browser_the_page_is_taken_as_it_came(
    chromium_settings: SettingsEnv, site: FakeSite, program: str
) -> None:
    chromium_settings(chromium_path=program)
    page = _visit(f"{site.url}/empty")
    assert (page.rendered, page.text) == (False, EMPTY)
