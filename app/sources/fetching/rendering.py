"""A page as its scripts make it, where it is next to nothing without them."""

from __future__ import annotations

from dataclasses import replace

from app.clients.browser import chromium, render
from app.core.errors import OutsideError, SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.sources.fetching.links import inspect_page
from app.sources.fetching.page_text import PageText

# A page with less text than this, and a script, is empty to whoever runs none.
MIN_CHARACTERS = 200

log = get_logger(__name__)


async def render_if_empty(page: PageText) -> PageText:
    """The page after its scripts, as MILLRACE_FETCH_JAVASCRIPT says; as it came where Chromium is not there or fails.

    Its own scripts' pictures, styles and calls are fetched without asking robots.txt, as a reader's browser does.
    """
    when = get_settings().fetch_javascript
    if when == "off" or page.format != "html" or chromium() is None:
        return page
    if when == "auto" and not await _is_empty(page):
        return page
    try:
        # What the server says of the bare page says nothing of what its scripts fetch.
        return replace(page, text=await render(page.url), rendered=True, etag=None, last_modified=None)
    except OutsideError as error:
        log.warning("not_rendered", url=page.url, code=error.code, reason=error.message)
        return page


async def _is_empty(page: PageText) -> bool:
    if "<script" not in page.text.lower():
        return False
    try:
        seen = await inspect_page(page)
    except (SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded):
        return False  # what takes down a lane is no page for a browser either
    return seen.scripts > 0 and seen.characters < MIN_CHARACTERS
