"""Run a page's scripts in Chromium if the page has almost no text without them."""

from __future__ import annotations

from dataclasses import replace

from app.clients.browser import find_chromium, render
from app.core.errors import InvalidInput, OutsideError, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.sources.fetching.links import inspect_page
from app.sources.fetching.page_text import PageText

# A page with a script and less text than this counts as empty without scripts.
MIN_CHARACTERS = 200

log = get_logger(__name__)


async def render_if_empty(page: PageText) -> PageText:
    """Return the page after its scripts, as MILLRACE_FETCH_JAVASCRIPT sets; unchanged if Chromium is missing or fails.

    Requests of the page's scripts do not consult robots.txt, as in a reader's browser.
    """
    when = get_settings().fetch_javascript
    if when == "off" or page.format != "html" or find_chromium() is None:
        return page
    if when == "auto" and not await _is_empty(page):
        return page
    try:
        # The server's validators cover the page without its scripts only.
        return replace(page, text=await render(page.url), rendered=True, etag=None, last_modified=None)
    except OutsideError as error:
        log.warning("not_rendered", url=page.url, code=error.code, reason=error.message)
        return page


async def _is_empty(page: PageText) -> bool:
    if "<script" not in page.text.lower():
        return False
    try:
        inspection = await inspect_page(page)
    except (InvalidInput, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded):
        return False  # a page that crashes the sandbox is not given to a browser
    return inspection.scripts > 0 and inspection.characters < MIN_CHARACTERS
