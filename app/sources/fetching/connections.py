"""HTTP connections to servers outside, checked when opened; a worker may share them between jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from app.core.http import AsyncClient, guarded_client, timeout
from app.core.network.guard import Resolver, addresses
from app.core.settings import get_settings

# A connection belongs to the event loop that opened it.
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = WeakKeyDictionary()


def open_client(resolver: Resolver | None = None) -> AsyncClient:
    """Return a new client, which the caller closes; `resolver` looks up names, by default this machine's."""

    async def addresses_of(host: str, port: int) -> list[str]:
        return await addresses(host, port, resolver=resolver)

    settings = get_settings()
    timeouts = timeout(settings.fetch_timeout_s, connect=settings.fetch_connect_timeout_s)
    return guarded_client(addresses_of, timeouts, headers={"user-agent": settings.fetch_user_agent})


@asynccontextmanager
async def client() -> AsyncIterator[AsyncClient]:
    """Yield the running loop's shared client, or else a client for this call."""
    shared = _shared.get(asyncio.get_running_loop())
    if shared is not None:
        yield shared
        return
    async with open_client() as new_client:
        yield new_client


async def share() -> None:
    """Share the running loop's connections from now on."""
    _shared.setdefault(asyncio.get_running_loop(), open_client())


async def close() -> None:
    """Close the running loop's shared connections, if any."""
    shared = _shared.pop(asyncio.get_running_loop(), None)
    if shared is not None:
        await shared.aclose()
