"""Turns at a host: one request at a time and a pause between, over all workers together.

    async with take_turn("example.org") as mine:
        ...
        mine.gap_s = 10        # what its robots.txt asks for

Redis keeps a host's line (mr:host:{host}); while it is away each process keeps its own, so the host may then see as
many requests at once as there are processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.core import clock, redis
from app.core.errors import ConfigError, Snooze, Unavailable
from app.core.ids import uuid7
from app.core.logging import get_logger
from app.core.settings import get_settings
from app.core.waiting import settled

SCRIPT = Path(__file__).with_name("host_turn.lua")
# Who must wait longer gives its slot in the worker to another job.
MAX_WAIT_S = 20.0
# A robots.txt that asks for more than this gets this.
MAX_GAP_S = 30.0
MAX_PAUSE_S = 3600.0
# How often it is looked whether the request before has ended.
LOOK_S = 0.1
# What a turn may take beyond its page: robots.txt, and the way to Redis.
LEASE_MARGIN_S = 30.0
# Those who are sent away come again one after the other, within this time, and not all at once after it.
MAX_SNOOZE_S = 900.0
SPREAD = 0.25
_MAX_HOSTS = 10_000

log = get_logger(__name__)


def host_of(url: str) -> str:
    """Whose turn it is to be."""
    return (urlsplit(url).hostname or "").rstrip(".")


def gap_s(asked_s: float | None) -> float:
    """The pause after a request, where robots.txt asks for so much."""
    return max(get_settings().fetch_host_delay_s, min(asked_s or 0.0, MAX_GAP_S))


@dataclass(slots=True)
class Turn:
    """`gap_s` is the pause that follows it."""

    host: str
    gap_s: float


@asynccontextmanager
async def take_turn(
    host: str, *, requested_gap_s: float | None = None, max_wait_s: float = MAX_WAIT_S
) -> AsyncIterator[Turn]:
    """Our turn at the host, waited for. Raises Snooze where that would take longer than max_wait_s."""
    mine, token = Turn(host, gap_s(requested_gap_s)), uuid7()
    try:
        await _wait(mine, token, max_wait_s)
        yield mine
    finally:
        # However it ends: the next need not wait for the lease.
        await _say(host, "finish", token, mine.gap_s)


async def pause(host: str, seconds: float) -> None:
    """Nobody asks the host anything for so long."""
    await _say(host, "pause", "", min(seconds, MAX_PAUSE_S))


async def _wait(mine: Turn, token: str, max_wait_s: float) -> None:
    give_up_at = clock.monotonic() + max_wait_s
    wait_s = await _say(mine.host, "place", token, mine.gap_s, max_wait_s)
    if wait_s < 0:
        raise _later(mine.host, -wait_s)
    settings = get_settings()
    lease_s = settings.fetch_timeout_s + settings.fetch_javascript_timeout_s + LEASE_MARGIN_S
    while True:
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        wait_s = await _say(mine.host, "begin", token, lease_s)
        if wait_s == 0:
            return
        if clock.monotonic() + min(wait_s, LOOK_S) > give_up_at:
            raise _later(mine.host, min(wait_s, max_wait_s))
        wait_s = min(wait_s, LOOK_S)


def _later(host: str, wait_s: float) -> Snooze:
    return Snooze(wait_s * (1 + random.uniform(0, SPREAD)), f"it is not our turn at {host} yet", code="host_busy")


async def _say(host: str, verb: str, token: str, *seconds: float) -> float:
    """Said to the end, also when we are cancelled: a turn that nobody knew of would be held for all of its lease."""
    said = asyncio.ensure_future(asyncio.to_thread(_said, host, verb, token, seconds))
    try:
        return await asyncio.shield(said)
    except asyncio.CancelledError:
        await settled(said)
        raise


def _said(host: str, verb: str, token: str, seconds: tuple[float, ...]) -> float:
    name = redis.HOST_TURN.format(hashlib.sha256(host.encode("utf-8", "replace")).hexdigest()[:32])
    args = [name, verb, token, *(int(one * 1e6) for one in seconds)]
    try:
        return int(redis.push().script(SCRIPT, args)) / 1e6
    except (Unavailable, ConfigError) as error:
        log.info("host_line_kept_alone", host=host, reason=error.message)
        return _alone.say(name, verb, token, *seconds)


@dataclass(slots=True)
class _Host:
    line: float = 0.0
    free: float = 0.0
    lease: float = 0.0
    far: float = 0.0
    holder: str = ""


class _Alone:
    """What the script does, in this process's memory and in seconds."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def say(self, key: str, verb: str, token: str, first: float, second: float = 0.0) -> float:
        now = clock.monotonic()
        with self._lock:
            if len(self._hosts) >= _MAX_HOSTS:
                self._hosts = {k: h for k, h in self._hosts.items() if max(h.line, h.free, h.lease, h.far) > now}
            host = self._hosts.setdefault(key, _Host())
            if host.lease <= now:
                host.holder, host.lease = "", 0.0
            if verb == "place":
                return self._place(host, now, first, second)
            if verb == "begin":
                return self._begin(host, now, token, first)
            if verb == "pause" or host.holder == token:
                host.free = max(host.free, now + first)
            if verb == "finish" and host.holder == token:
                host.holder, host.lease = "", 0.0
            return 0.0

    def _place(self, host: _Host, now: float, gap: float, longest: float) -> float:
        start = max(now, host.line, host.free)
        if start - now > longest:
            host.far = min(max(host.far, start) + gap, now + max(start - now, MAX_SNOOZE_S))
            return now - host.far
        host.line = start + gap
        return start - now

    def _begin(self, host: _Host, now: float, token: str, lease: float) -> float:
        if host.holder not in ("", token):
            return host.lease - now
        if host.free > now:
            return host.free - now
        host.holder, host.lease = token, now + lease
        return 0.0


_alone = _Alone()
