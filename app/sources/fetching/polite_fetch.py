"""Fetch a page politely: obey robots.txt, send one request at a time to a host, run scripts where needed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import overload

from app.core.errors import Unavailable
from app.sources.fetching import politeness, robots
from app.sources.fetching.page_text import NotModified, PageText, Validators, fetch
from app.sources.fetching.politeness import Turn
from app.sources.fetching.rendering import render_if_empty

# In the midst of redirects: giving up would ask the first host again, and might never get through.
MAX_REDIRECT_WAIT_S = 60.0


@overload
async def fetch_politely(url: str) -> PageText: ...
@overload
async def fetch_politely(url: str, *, seen: Validators | None) -> PageText | NotModified: ...
async def fetch_politely(url: str, *, seen: Validators | None = None) -> PageText | NotModified:
    """fetch() with manners.

    Raises as fetch() does, Rejected (code `robots`) for what is forbidden, Snooze where the host's turn is far off. A
    host that asks for patience (429, 503 with Retry-After) is left alone for so long by all workers.
    """
    async with HostSession() as host_session:
        try:
            page = await fetch(url, seen=seen, before=host_session.wait_turn)
        except Unavailable as error:
            if error.retry_after_s and error.code == Unavailable.code and host_session.host:
                await politeness.pause(host_session.host, error.retry_after_s)
            raise
        return page if isinstance(page, NotModified) else await render_if_empty(page)


class HostSession:
    """Whose turn lasts until it leaves, or goes on to another host."""

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
        """Wait for the turn at the URL's host, unless it is ours already. Raises Rejected, Snooze, Unavailable."""
        host, on_the_way = politeness.host_of(url), self._turn is not None
        if self._turn is None or self._turn.host != host:
            await self._leave()
            known = await robots.known_rules(url)
            if known is not None:
                known.check(url)
            self._turn = await self._stack.enter_async_context(
                politeness.take_turn(
                    host,
                    requested_gap_s=known.crawl_delay_s if known else None,
                    max_wait_s=MAX_REDIRECT_WAIT_S if on_the_way else politeness.MAX_WAIT_S,
                )
            )
        rules = await robots.rules(url)
        self._turn.gap_s = politeness.gap_s(rules.crawl_delay_s)
        rules.check(url)

    async def _leave(self) -> None:
        await self._stack.aclose()
        self._turn = None
