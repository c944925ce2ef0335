"""Rate limits of outside services: calls per second for a key, over all workers together.

    TO_HOST = Rate(5)
    await rates.take(f"host:{host}", TO_HOST)

One number a key in Redis (mr:rate:{key}) holds the next free time. While Redis is away each process keeps its own
number, so the service may get the rate once for each process.
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

# A job that must wait longer gives its slot in the worker to another job.
MAX_WAIT_S = 5.0
# A thread that waits for a sandbox call cannot be interrupted, so it waits only briefly.
MAX_THREAD_WAIT_S = 0.5
# Snoozed jobs come back at different times.
SPREAD = 0.5
_MAX_KEYS = 10_000

log = get_logger(__name__)


async def take(key: str, rate: Rate, *, max_wait_s: float = MAX_WAIT_S) -> None:
    """Wait for this call's turn; calls are served in their order.

    Raises Snooze if the turn is more than max_wait_s away; the job runs again then.
    """
    wait_s = await asyncio.to_thread(reserve, key, rate, max_wait_s)
    if wait_s > 0:
        await asyncio.sleep(wait_s)


def reserve(key: str, rate: Rate, max_wait_s: float = MAX_WAIT_S) -> float:
    """Take the key's next place and return the seconds until its turn. Raises Snooze if they exceed max_wait_s."""
    try:
        wait_s, taken = _reserve_in_redis(key, rate, max_wait_s)
    except (Unavailable, ConfigError) as error:
        log.info("rate_kept_alone", key=key, reason=error.message)
        wait_s, taken = _local_rates.reserve(key, rate, max_wait_s)
    if not taken:
        raise Snooze(
            wait_s * (1 + random.uniform(0, SPREAD)),
            f"{key} allows {rate.calls:g} calls in {rate.per_s:g} s",
            code="rate",
        )
    return wait_s


def start_rate_of(job: Job) -> tuple[str, Rate] | None:
    """Return key and rate by which jobs of this kind start; None for most kinds."""
    kind = type(job)
    if kind.start_rate is None:
        return None
    return (kind.kind if kind.start_rate_key is None else str(kind.start_rate_key(job))), kind.start_rate


def _reserve_in_redis(key: str, rate: Rate, max_wait_s: float) -> tuple[float, bool]:
    # A key may be anything, and long.
    name = redis.CALL_RATE.format(hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:32])
    args = [name, int(rate.gap_s * 1e6), rate.burst, int(max_wait_s * 1e6)]
    wait, taken = redis.push().script(LUA / "rate.lua", args)
    return int(wait) / 1e6, bool(taken)


class _LocalRates:
    """The same limits in this process's memory."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._lock = threading.Lock()

    def reserve(self, key: str, rate: Rate, max_wait_s: float) -> tuple[float, bool]:
        now = clock.monotonic()
        with self._lock:
            if len(self._due) >= _MAX_KEYS:
                self._due = {known: due for known, due in self._due.items() if due > now}
            due = max(self._due.get(key, 0.0), now)
            wait_s = max(0.0, due - now - (rate.burst - 1) * rate.gap_s)
            if wait_s > max_wait_s:
                return wait_s, False
            self._due[key] = due + rate.gap_s
            return wait_s, True


_local_rates = _LocalRates()
