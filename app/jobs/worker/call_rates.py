"""Rate caps of outside services: so many calls a second to one key, over all workers together.

    TO_HOST = Rate(5)
    await rates.take(f"host:{host}", TO_HOST)

One number a key in Redis (mr:rate:{key}) holds the line; while Redis is away each process keeps its own line, so the
service may then see as many times the rate as there are processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading

from app.core import clock, redis
from app.core.errors import ConfigError, Snooze, Unavailable
from app.core.logging import get_logger
from app.jobs.definition import Job, Rate
from app.jobs.lua import LUA

# Who must wait longer gives its slot in the worker to another job.
LONGEST_WAIT_S = 5.0
# A sandbox's thread waits deaf, so not for long.
LONGEST_DEAF_WAIT_S = 0.5
# Those who were sent away do not come back all at once.
SPREAD = 0.5
_MOST_LINES = 10_000

log = get_logger(__name__)


async def take(key: str, rate: Rate, *, longest_wait_s: float = LONGEST_WAIT_S) -> None:
    """Wait for this call's turn. Raises Snooze where that is longer than longest_wait_s away: the job runs again then.

    The order of those who wait is that in which they came.
    """
    wait_s = await asyncio.to_thread(reserve, key, rate, longest_wait_s)
    if wait_s > 0:
        await asyncio.sleep(wait_s)


def reserve(key: str, rate: Rate, longest_wait_s: float = LONGEST_WAIT_S) -> float:
    """Take the key's next place and return the seconds until its turn. Raises Snooze where they are too many."""
    try:
        wait_s, taken = _in_redis(key, rate, longest_wait_s)
    except (Unavailable, ConfigError) as error:
        log.info("rate_kept_alone", key=key, reason=error.message)
        wait_s, taken = _lines.reserve(key, rate, longest_wait_s)
    if not taken:
        raise Snooze(
            wait_s * (1 + random.uniform(0, SPREAD)),
            f"{key} takes {rate.calls:g} calls in {rate.per_s:g} s",
            code="rate",
        )
    return wait_s


def start_of(job: Job) -> tuple[str, Rate] | None:
    """The line in which jobs of this kind wait before they start; None for most kinds."""
    kind = type(job)
    if kind.start_rate is None:
        return None
    return (kind.kind if kind.start_rate_key is None else str(kind.start_rate_key(job))), kind.start_rate


def _in_redis(key: str, rate: Rate, longest_wait_s: float) -> tuple[float, bool]:
    # A key may be anything, and long.
    name = redis.CALL_RATE.format(hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:32])
    args = [name, int(rate.gap_s * 1e6), rate.burst, int(longest_wait_s * 1e6)]
    wait, taken = redis.push().script(LUA / "rate.lua", args)
    return int(wait) / 1e6, bool(taken)


class _Lines:
    """The same in this process's memory."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._lock = threading.Lock()

    def reserve(self, key: str, rate: Rate, longest_wait_s: float) -> tuple[float, bool]:
        now = clock.monotonic()
        with self._lock:
            if len(self._due) >= _MOST_LINES:
                self._due = {known: due for known, due in self._due.items() if due > now}
            due = max(self._due.get(key, 0.0), now)
            wait_s = max(0.0, due - now - (rate.burst - 1) * rate.gap_s)
            if wait_s > longest_wait_s:
                return wait_s, False
            self._due[key] = due + rate.gap_s
            return wait_s, True


_lines = _Lines()
