"""A site gets one request at a time, with any number of jobs and workers."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import pytest

from app.clients.browser import find_chromium
from tests.fakes.site import FakeSite, site
from tests.fakes.site import page as site_page
from tests.support.services import missing
from tests.support.stack import Stack

__all__ = ["site"]

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

WORDS = "The wheel turns in the water of the mill. " * 8
GAP_S = 0.3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # turns are kept in Redis
def test_one_request_at_a_time_per_host(stack: Stack, site: FakeSite) -> None:
    """By two workers at once: robots.txt once, a pause after each page, and what is forbidden not at all."""
    stack.env["MILLRACE_FETCH_HOST_DELAY_S"] = str(GAP_S)
    robots = b"User-agent: *\nDisallow: /forbidden\n"
    site.pages["/robots.txt"] = site_page(robots, headers={"content-type": "text/plain"})
    for number in range(6):
        text = f"{number}. {WORDS}".encode()
        site.pages[f"/{number}"] = site_page(text, headers={"content-type": "text/plain"}, delay_s=0.2)
    stack.start(workers=2)
    jobs = [_give(stack, f"{site.url}/{path}") for path in (*range(6), "forbidden")]
    ends = [stack.wait_for_job(job, "succeeded", "failed", timeout_s=60) for job in jobs]
    assert [end["state"] for end in ends] == ["succeeded"] * 6 + ["failed"]
    assert ends[-1]["error"]["code"] == "robots"
    assert sorted(path for path, _ in site.visits) == ["/0", "/1", "/2", "/3", "/4", "/5", "/robots.txt"]
    pages = sorted((request.begun_at, request.ended_at) for request in site.requests if request.path != "/robots.txt")
    assert min(after[0] - before[1] for before, after in pairwise(pages)) > 0.8 * GAP_S


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the subject is Chromium
def test_rendered_page_is_indexed_with_its_scripts(stack: Stack, site: FakeSite) -> None:
    """Fetched, opened in Chromium, indexed, found."""
    if find_chromium() is None:
        missing("chromium", "apt-get install chromium")
    stack.env["MILLRACE_CHROMIUM_SANDBOX"] = str(os.getuid() != 0).lower()
    script = "fetch('/words').then(r => r.text()).then(t => document.getElementById('app').textContent = t)"
    site.pages["/"] = site_page(f"<html><body><p id=app></p><script>{script}</script></body></html>".encode())
    site.pages["/words"] = site_page(f"A turbine. {WORDS}".encode())
    stack.start(workers=1)
    assert stack.wait_for_job(_give(stack, f"{site.url}/"), "succeeded", "failed", timeout_s=60)["state"] == "succeeded"
    response: dict[str, Any] = stack.post("/api/search", {"query": "turbine"}).json()
    assert response["results"] and "turbine" in str(response["results"][0]).lower()


def _give(stack: Stack, url: str) -> str:
    return str(stack.post("/api/documents", {"url": url}).json()["id"])
