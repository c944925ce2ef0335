"""How often a key may ask: fixed windows, counted in Redis for all processes, and here alone while Redis is away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from redis.exceptions import RedisError

from app.core import clock, redis
from app.core.errors import InvalidInput
from app.core.logging import get_logger

log = get_logger(__name__)

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
UNLIMITED = "unlimited"
# Redis has this long to answer; then, and for a second after, this process counts alone.
PATIENCE_S = 0.1
ALONE_S = 1.0
# So many requests before its limit a key is asked about before each answer, so that the limit is exact.
MARGIN = 50
MOST_COUNTED = 100_000
MOST_ENTRIES = 100
_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)", re.ASCII)
_ROUTE = re.compile(r"\*|(GET|HEAD|POST|PUT|PATCH|DELETE) /[!-~]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` requests in each window of `window_s` seconds."""

    limit: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """`50/minute`; None for `unlimited`. Raises InvalidInput."""
        found = _RATE.fullmatch(text)
        if found:
            return cls(int(found[1]), UNITS[found[2]])
        if text == UNLIMITED:
            return None
        raise InvalidInput(
            f"rate_limits: {text!r} is no rate; say 50/minute (or second, hour, day) or unlimited", code="rate"
        )

    def __str__(self) -> str:
        unit = next(name for name, seconds in UNITS.items() if seconds == self.window_s)
        return f"{self.limit} per 1 {unit}"


@dataclass(frozen=True, slots=True)
class Count:
    """What one request made of its window: `left` is below 0 where it was one too many."""

    left: int
    reset_s: float


def checked(limits: Mapping[str, str]) -> dict[str, str]:
    """Limits of a key: route (`POST /api/search`, or `*` for all others) → rate. Raises InvalidInput."""
    if len(limits) > MOST_ENTRIES:
        raise InvalidInput(f"rate_limits: at most {MOST_ENTRIES}", code="rate")
    for route, rate in limits.items():
        if not _ROUTE.fullmatch(route):
            raise InvalidInput(f"rate_limits: {route!r} is no route; say POST /api/search, or *", code="rate_route")
        Rate.parse(rate)
    return dict(limits)


def of_key(limits: Mapping[str, str], route: str, default: Rate | None) -> Rate | None:
    """The rate of this route for a key with these limits; None where it is unlimited."""
    given = limits.get(route, limits.get("*"))
    return default if given is None else Rate.parse(given)


@dataclass(frozen=True, slots=True)
class _Question:
    bucket: str
    window: int
    window_s: int
    future: asyncio.Future[int]

    @property
    def key(self) -> str:
        return redis.RATE.format(f"{self.bucket}:{self.window_s}:{self.window}")


class Counter:
    """Counts requests. Lives on one loop; `close()` is called there."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._client = redis.async_push()
        self._patience_s = patience_s
        self._alone_until = 0.0
        # bucket → (window, count): what counts while Redis is away, and what needs no question, being full already.
        self._here: dict[str, tuple[int, int]] = {}
        self._questions: list[_Question] = []
        self._asking: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """Until Redis has answered what it was asked."""
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._client.aclose()

    async def hit(self, bucket: str, rate: Rate) -> Count:
        """Count one request of this bucket. Never raises.

        Far from the limit nobody waits for Redis: its answer counts for the next request.
        """
        now = clock.now().timestamp()
        window = int(now // rate.window_s)
        reset_s = (window + 1) * rate.window_s - now
        count = self._count(bucket, window) + 1
        self._set(bucket, window, count)
        if count <= rate.limit and clock.monotonic() >= self._alone_until:
            answer = self._ask(bucket, window, rate.window_s)
            if count > rate.limit // 2 or rate.limit - count < MARGIN:
                count = max(count, await answer)
        return Count(rate.limit - count, reset_s)

    def _count(self, bucket: str, window: int) -> int:
        known = self._here.get(bucket)
        return known[1] if known and known[0] == window else 0

    def _set(self, bucket: str, window: int, count: int) -> None:
        if len(self._here) >= MOST_COUNTED and bucket not in self._here:
            self._here.clear()
        self._here[bucket] = (window, count)

    def _ask(self, bucket: str, window: int, window_s: int) -> asyncio.Future[int]:
        """How many the bucket had with this one, in all processes; 0 where Redis does not say."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(bucket, window, window_s, future))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="rates-ask")
        return future

    async def _ask_all(self) -> None:
        """One round trip for all that came meanwhile."""
        while self._questions:
            questions, self._questions = self._questions, []
            counts = [0] * len(questions)
            try:
                async with asyncio.timeout(self._patience_s), self._client.pipeline(transaction=False) as pipeline:
                    for question in questions:
                        pipeline.incr(question.key)
                        pipeline.expire(question.key, question.window_s + 1)
                    counts = [int(answer) for answer in (await pipeline.execute())[::2]]
            except (RedisError, OSError, TimeoutError) as error:
                log.info("rates_counted_alone", reason=str(error) or type(error).__name__)
                self._alone_until = clock.monotonic() + ALONE_S
            for question, count in zip(questions, counts, strict=True):
                known = self._here.get(question.bucket, (question.window, 0))
                if known[0] == question.window and count > known[1]:  # nobody needs to know of a window that is over
                    self._set(question.bucket, question.window, count)
                if not question.future.done():
                    question.future.set_result(count)
