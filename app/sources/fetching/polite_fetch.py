"""A page fetched as a guest: robots.txt obeyed, one request to a host at a time, its scripts run where they must."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import overload

from app.core.errors import Unavailable
from app.sources.fetching import politeness, robots
from app.sources.fetching.page_text import NotModified, Page, Seen, fetch
from app.sources.fetching.politeness import Turn
from app.sources.fetching.rendered import rendered

# In the midst of redirects: giving up would ask the first host again, and might never get through.
LONGEST_WAIT_ON_THE_WAY_S = 60.0


@overload
async def visit(url: str) -> Page: ...
@overload
async def visit(url: str, *, seen: Seen | None) -> Page | NotModified: ...
async def visit(url: str, *, seen: Seen | None = None) -> Page | NotModified:
    """fetch() with manners.

    Raises as fetch() does, Rejected (code `robots`) for what is forbidden, Snooze where the host's turn is far off. A
    host that asks for patience (429, 503 with Retry-After) is left alone for so long by all workers.
    """
    async with Guest() as guest:
        try:
            page = await fetch(url, seen=seen, before=guest.come)
        except Unavailable as error:
            if error.retry_after_s and error.code == Unavailable.code and guest.host:
                await politeness.pause(guest.host, error.retry_after_s)
            raise
        return page if isinstance(page, NotModified) else await rendered(page)


class Guest:
    """Whose turn lasts until it leaves, or goes on to another host."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._turn: Turn | None = None

    async def __aenter__(self) -> Guest:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._leave()

    @property
    def host(self) -> str | None:
        return self._turn.host if self._turn else None

    async def come(self, url: str) -> None:
        """Wait for the turn at the URL's host, unless it is ours already. Raises Rejected, Snooze, Unavailable."""
        host, on_the_way = politeness.host_of(url), self._turn is not None
        if self._turn is None or self._turn.host != host:
            await self._leave()
            known = await robots.known_rules(url)
            if known is not None:
                known.check(url)
            self._turn = await self._stack.enter_async_context(
                politeness.turn(
                    host,
                    asked_gap_s=known.crawl_delay_s if known else None,
                    longest_wait_s=LONGEST_WAIT_ON_THE_WAY_S if on_the_way else politeness.LONGEST_WAIT_S,
                )
            )
        rules = await robots.rules(url)
        self._turn.gap_s = politeness.gap_s(rules.crawl_delay_s)
        rules.check(url)

    async def _leave(self) -> None:
        await self._stack.aclose()
        self._turn = None
