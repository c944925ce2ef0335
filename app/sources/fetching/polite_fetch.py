"""Fetch a page politely: obey robots.txt, send one request at a time to a host, run scripts where needed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import overload

from app.core.errors import SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded
from app.core.http import Cookies
from app.sources.fetching import politeness, robots
from app.sources.fetching.download import ServerBusy
from app.sources.fetching.links import inspect_page
from app.sources.fetching.page_text import NotModified, PageText, Validators, fetch
from app.sources.fetching.politeness import Turn
from app.sources.fetching.rendering import render_if_empty

# Longest wait for a turn after a redirect: giving up there would request the first host again without progress.
MAX_REDIRECT_WAIT_S = 60.0
MAX_REFRESHES = 5
# A refresh stands in the head of a page.
MAX_REFRESH_CHARACTERS = 100_000


@overload
async def fetch_politely(url: str) -> PageText: ...
@overload
async def fetch_politely(url: str, *, validators: Validators | None) -> PageText | NotModified: ...
async def fetch_politely(url: str, *, validators: Validators | None = None) -> PageText | NotModified:
    """Fetch a page: obey robots.txt, wait for the host's turn, and run scripts where needed.

    A page that refreshes to another one within seconds is a redirect. Raises the errors of fetch(), RobotsForbidden for
    a forbidden page, and Snooze if the turn is too far off. After 429 or 503 with Retry-After no worker contacts the
    host for that time.
    """
    async with HostSession() as host_session:
        try:
            page = await _fetch_refreshed(url, validators, host_session)
        except ServerBusy as error:
            if error.retry_after_s and host_session.host:
                await politeness.pause(host_session.host, error.retry_after_s)
            raise
        return page if isinstance(page, NotModified) else await render_if_empty(page)


async def _fetch_refreshed(
    url: str, validators: Validators | None, host_session: HostSession
) -> PageText | NotModified:
    """Fetch the page, and those that it refreshes to; pages that refresh to each other are pages."""
    cookies, passed_urls = Cookies(), set[str]()
    page = await fetch(url, validators=validators, before=host_session.wait_turn, cookies=cookies)
    while isinstance(page, PageText) and len(passed_urls) < MAX_REFRESHES:
        target = await _refresh_of(page)
        if target is None or target in passed_urls:
            break
        passed_urls.add(page.url)
        page = await fetch(target, validators=None, before=host_session.wait_turn, cookies=cookies)
    return page


async def _refresh_of(page: PageText) -> str | None:
    """Return the URL that the page's HTML refreshes to within seconds."""
    head = page.text[:MAX_REFRESH_CHARACTERS].lower() if page.format == "html" else ""
    if "refresh" not in head or "http-equiv" not in head:
        return None
    try:
        return (await inspect_page(page)).refresh
    except (SandboxCrashed, SandboxOutOfMemory, TimeLimitExceeded):
        return None  # a page that crashes the sandbox is no redirect


class HostSession:
    """Holds the turn at one host until it ends or moves on to another host."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._turn: Turn | None = None

    async def __aenter__(self) -> HostSession:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._leave()

    @property
    def host(self) -> str | None:
        return self._turn.host if self._turn else None

    async def wait_turn(self, url: str) -> None:
        """Wait for the turn at the URL's host, unless it is held already. Raises Rejected, Snooze, Unavailable."""
        host, is_redirect = politeness.host_of(url), self._turn is not None
        if self._turn is None or self._turn.host != host:
            await self._leave()
            cached = await robots.read_cached_rules(url)
            if cached is not None:
                cached.check(url)
            self._turn = await self._stack.enter_async_context(
                politeness.take_turn(
                    host,
                    requested_gap_s=cached.crawl_delay_s if cached else None,
                    max_wait_s=MAX_REDIRECT_WAIT_S if is_redirect else politeness.MAX_WAIT_S,
                )
            )
        rules = await robots.read_rules(url)
        self._turn.gap_s = politeness.gap_s(rules.crawl_delay_s)
        rules.check(url)

    async def _leave(self) -> None:
        await self._stack.aclose()
        self._turn = None
