"""Connections to strangers' servers, checked as they are opened, and kept where a worker says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from app.core.guard import Resolver, addresses
from app.core.http import AsyncClient, guarded_client, timeout
from app.core.settings import get_settings

# A connection belongs to the loop it was made in.
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = WeakKeyDictionary()


def open_client(resolver: Resolver | None = None) -> AsyncClient:
    """A client of its own, to be closed; `resolver` says where names are, by default this machine."""

    async def addresses_of(host: str, port: int) -> list[str]:
        return await addresses(host, port, resolver=resolver)

    settings = get_settings()
    timeouts = timeout(settings.fetch_timeout_s, connect=settings.fetch_connect_timeout_s)
    return guarded_client(addresses_of, timeouts, headers={"user-agent": settings.fetch_user_agent})


@asynccontextmanager
async def client() -> AsyncIterator[AsyncClient]:
    """The running loop's kept one, else one for this call."""
    kept = _shared.get(asyncio.get_running_loop())
    if kept is not None:
        yield kept
        return
    async with open_client() as fresh:
        yield fresh


async def share() -> None:
    """From now on the running loop's connections are kept and shared."""
    _shared.setdefault(asyncio.get_running_loop(), open_client())


async def close() -> None:
    """Close the running loop's connections, if any are kept."""
    kept = _shared.pop(asyncio.get_running_loop(), None)
    if kept is not None:
        await kept.aclose()
