"""The pages in Chromium: accessible in both themes and on a phone, live without a reload, usable without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from app.core import clock
from app.core.db import database
from app.jobs.events import publish
from app.jobs.events.publish import JobEvent
from app.jobs.models import JobRow
from tests.support.stack import API_SECRET
from tests.support.waiting import wait_until
from tests.unit.api.conftest import Api
from tests.unit.dashboard.conftest import Furnishing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 360, "height": 740}
# What a browser does when another tab is chosen.
HIDE = """
Object.defineProperty(document, "hidden", { value: true, configurable: true });
document.dispatchEvent(new Event("visibilitychange"))
"""
RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def browsing(browser: Browser, api: Api, **options: Any) -> Iterator[Page]:
    """Yield a page that has signed in. A violation of the policy and an error of a script fail the test."""
    context = browser.new_context(base_url=api.url, **options)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    try:
        page.goto("/ui/sign-in")
        page.fill("#key", API_SECRET)
        page.press("#key", "Enter")
        page.wait_for_url("**/ui/")
        yield page
        assert faults == []
    finally:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_page_is_accessible(
    chromium: Browser, lite_api: Api, furnishing: Furnishing, scheme: str, size: dict[str, int]
) -> None:
    with browsing(chromium, lite_api, color_scheme=scheme, viewport=size) as page:
        faults = []
        for path in furnishing.pages():
            page.goto(path)
            for violation in Axe().run(page, options={"runOnly": RULES}).response["violations"]:
                faults += [f"{path}: {violation['id']}: {node['html'][:200]}" for node in violation["nodes"]]
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            faults += [f"{path} is {overflow} px too wide"] if overflow > 0 else []
        assert faults == []


def test_the_sign_in_is_accessible(chromium: Browser, lite_api: Api) -> None:
    page = chromium.new_page(base_url=lite_api.url)
    page.goto("/ui/sign-in")
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    assert page.get_by_role("alert").is_visible()
    assert Axe().run(page, options={"runOnly": RULES}).violations_count == 0
    page.close()


def test_progress_and_end_of_a_job_appear_without_a_reload(
    chromium: Browser, lite_api: Api, furnishing: Furnishing
) -> None:
    with browsing(chromium, lite_api) as page:
        page.goto("/ui/jobs")
        row = page.locator(f"#job-{furnishing.running_id}")
        page.locator("#live", has_text="live").wait_for()
        page.evaluate("window.sameDocument = true")
        progress = {"percent": 77.0, "stage": "send", "done": 7, "total": 9, "unit": None, "message": None}
        publish.publish([JobEvent(furnishing.running_id, "default", "progress", "running", 1, progress, 3)])
        row.get_by_text("77 % send").wait_for(timeout=5000)
        database().transaction(_finish, furnishing.running_id)
        row.get_by_text("succeeded").wait_for(timeout=15000)
        assert row.locator("progress").count() == 0
        assert page.evaluate("window.sameDocument") is True


def _finish(session: Any, job_id: str) -> None:
    row = session.get(JobRow, job_id)
    row.state, row.finished_at = "succeeded", clock.now()


def test_a_hidden_tab_holds_no_stream(chromium: Browser, lite_api: Api, furnishing: Furnishing) -> None:
    with browsing(chromium, lite_api) as page:
        page.goto("/ui/jobs")
        page.locator("#live", has_text="live").wait_for()
        assert lite_api.hub.subscriber_count > 0
        page.evaluate(HIDE)
        wait_until(lambda: lite_api.hub.subscriber_count == 0, timeout_s=10, what="the stream to be closed")
        page.evaluate(HIDE.replace("true", "false"))
        wait_until(lambda: lite_api.hub.subscriber_count > 0, timeout_s=10, what="the stream to be open again")


def test_an_act_asks_first_and_the_keyboard_is_enough(chromium: Browser, lite_api: Api, furnishing: Furnishing) -> None:
    with browsing(chromium, lite_api) as page:
        page.keyboard.press("/")
        page.keyboard.type(furnishing.job_id)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/ui/jobs/{furnishing.job_id}")
        page.get_by_role("button", name="Cancel").focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        assert dialog.get_by_text("Cancel this job?").is_visible()
        page.keyboard.press("Escape")
        dialog.wait_for(state="detached")
        assert _state(furnishing.job_id) == "queued"
        page.keyboard.press("Enter")  # the focus is on the button again
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_text("The job is cancelled").wait_for()
        assert _state(furnishing.job_id) == "cancelled"
        page.keyboard.press("g")
        page.keyboard.press("f")
        page.wait_for_url("**/ui/failures")


def test_everything_works_without_scripts(chromium: Browser, lite_api: Api, furnishing: Furnishing) -> None:
    with browsing(chromium, lite_api, java_script_enabled=False) as page:
        page.get_by_role("link", name="Jobs", exact=True).click()
        page.get_by_role("link", name="Failed", exact=True).click()
        page.locator("tbody a").first.click()
        page.get_by_role("button", name="Retry").click()
        assert page.get_by_text("The job is queued again.").is_visible()
        page.get_by_label("Job id, document number or words to search for").fill("zugspitze")
        page.get_by_role("button", name="Go").click()
        page.get_by_role("link", name="zugspitze", exact=True).first.click()
        assert page.get_by_text("The zugspitze is high.").first.is_visible()


def _state(job_id: str) -> str:
    row = database().read(lambda session: session.get(JobRow, job_id))
    assert row is not None
    return row.state
