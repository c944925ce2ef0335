"""Turns at a host: one request at a time with a pause after each, across all workers.

    async with take_turn("example.org") as turn:
        ...
        turn.gap_s = 10        # the pause that its robots.txt asks for

Redis holds a host's queue (mr:host:{host}). While Redis is down each process has a separate queue, so the host may get
as many requests at once as there are processes.
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
# A job that must wait longer leaves its worker slot to another job.
MAX_WAIT_S = 20.0
# Upper limit of the pause that a robots.txt can ask for.
MAX_GAP_S = 30.0
MAX_PAUSE_S = 3600.0
# Interval of the checks if the previous request has ended.
POLL_S = 0.1
# Time of a turn in addition to the page: robots.txt, and Redis.
LEASE_MARGIN_S = 30.0
# Snoozed jobs return one after the other within this time, instead of all at once.
MAX_SNOOZE_S = 900.0
SPREAD = 0.25
_MAX_HOSTS = 10_000

log = get_logger(__name__)


def host_of(url: str) -> str:
    """Return the host name of the URL, the key of its turns."""
    return (urlsplit(url).hostname or "").rstrip(".")


def gap_s(requested_s: float | None) -> float:
    """Return the pause after a request, given the one that robots.txt asks for."""
    return max(get_settings().fetch_host_delay_s, min(requested_s or 0.0, MAX_GAP_S))


@dataclass(slots=True)
class Turn:
    """A turn at a host; `gap_s` is the pause after it."""

    host: str
    gap_s: float


@asynccontextmanager
async def take_turn(
    host: str, *, requested_gap_s: float | None = None, max_wait_s: float = MAX_WAIT_S
) -> AsyncIterator[Turn]:
    """Wait for a turn at the host and hold it. Raises Snooze if the wait would exceed max_wait_s."""
    turn, token = Turn(host, gap_s(requested_gap_s)), uuid7()
    try:
        await _wait(turn, token, max_wait_s)
        yield turn
    finally:
        # Always give the turn back, so that the next need not wait for the lease to end.
        await _call(host, "finish", token, turn.gap_s)


async def pause(host: str, seconds: float) -> None:
    """Block all requests to the host for this time."""
    await _call(host, "pause", "", min(seconds, MAX_PAUSE_S))


async def _wait(turn: Turn, token: str, max_wait_s: float) -> None:
    give_up_at = clock.monotonic() + max_wait_s
    wait_s = await _call(turn.host, "place", token, turn.gap_s, max_wait_s)
    if wait_s < 0:
        raise _snooze(turn.host, -wait_s)
    settings = get_settings()
    lease_s = settings.fetch_timeout_s + settings.fetch_javascript_timeout_s + LEASE_MARGIN_S
    while True:
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        wait_s = await _call(turn.host, "begin", token, lease_s)
        if wait_s == 0:
            return
        if clock.monotonic() + min(wait_s, POLL_S) > give_up_at:
            raise _snooze(turn.host, min(wait_s, max_wait_s))
        wait_s = min(wait_s, POLL_S)


def _snooze(host: str, wait_s: float) -> Snooze:
    return Snooze(wait_s * (1 + random.uniform(0, SPREAD)), f"the turn at {host} is too far off", code="host_busy")


async def _call(host: str, verb: str, token: str, *seconds: float) -> float:
    """Run one step of the script; completes even if cancelled, since a lost turn blocks the host for its lease."""
    call = asyncio.ensure_future(asyncio.to_thread(_call_redis, host, verb, token, seconds))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await settled(call)
        raise


def _call_redis(host: str, verb: str, token: str, seconds: tuple[float, ...]) -> float:
    name = redis.HOST_TURN.format(hashlib.sha256(host.encode("utf-8", "replace")).hexdigest()[:32])
    args = [name, verb, token, *(int(value * 1e6) for value in seconds)]
    try:
        return int(redis.push().script(SCRIPT, args)) / 1e6
    except (Unavailable, ConfigError) as error:
        log.info("host_line_kept_alone", host=host, reason=error.message)
        return _local_turns.call(name, verb, token, *seconds)


@dataclass(slots=True)
class _Host:
    line: float = 0.0
    free: float = 0.0
    lease: float = 0.0
    far: float = 0.0
    holder: str = ""


class _LocalTurns:
    """The script's logic in this process's memory, in seconds."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def call(self, key: str, verb: str, token: str, first: float, second: float = 0.0) -> float:
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


_local_turns = _LocalTurns()
