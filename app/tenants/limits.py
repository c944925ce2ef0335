"""Rate limits of keys: fixed windows, counted in Redis for all processes, or per process without Redis."""

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
# Redis has this long to answer; after a failure, and for a second more, this process counts alone.
PATIENCE_S = 0.1
ALONE_S = 1.0
# Within this many requests of its limit, a key waits for Redis before each answer, so that the limit is exact.
MARGIN = 50
MAX_BUCKETS = 100_000
MAX_ENTRIES = 100
_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)", re.ASCII)
_ROUTE = re.compile(r"\*|(GET|HEAD|POST|PUT|PATCH|DELETE) /[!-~]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` requests in each window of `window_s` seconds."""

    limit: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> RateLimit | None:
        """Parse `50/minute`; None for `unlimited`. Raises InvalidInput."""
        match = _RATE.fullmatch(text)
        if match:
            return cls(int(match[1]), UNITS[match[2]])
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
    """The result of counting one request; `left` is below 0 if it exceeds the limit."""

    left: int
    reset_s: float


def check_limits(limits: Mapping[str, str]) -> dict[str, str]:
    """Return the limits of a key: route (`POST /api/search`, or `*` for all others) → rate. Raises InvalidInput."""
    if len(limits) > MAX_ENTRIES:
        raise InvalidInput(f"rate_limits: at most {MAX_ENTRIES}", code="rate")
    for route, rate in limits.items():
        if not _ROUTE.fullmatch(route):
            raise InvalidInput(
                f"rate_limits: {route!r} is not a route; expected for example POST /api/search, or *", code="rate_route"
            )
        RateLimit.parse(rate)
    return dict(limits)


def of_key(limits: Mapping[str, str], route: str, default: RateLimit | None) -> RateLimit | None:
    """Return the rate of this route for a key with these limits; None if unlimited."""
    text = limits.get(route, limits.get("*"))
    return default if text is None else RateLimit.parse(text)


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
    """Counts requests. Lives on one event loop, where `close()` is called."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._client = redis.async_push()
        self._patience_s = patience_s
        self._alone_until = 0.0
        # bucket → (window, count): used while Redis is unavailable, and for buckets known to be full.
        self._here: dict[str, tuple[int, int]] = {}
        self._questions: list[_Question] = []
        self._asking: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """Wait until Redis has answered the pending requests."""
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._client.aclose()

    async def hit(self, bucket: str, rate: RateLimit) -> Count:
        """Count one request of this bucket. Never raises.

        Far from the limit requests do not wait for Redis: its answer counts for the next request.
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
        if len(self._here) >= MAX_BUCKETS and bucket not in self._here:
            self._here.clear()
        self._here[bucket] = (window, count)

    def _ask(self, bucket: str, window: int, window_s: int) -> asyncio.Future[int]:
        """Return a future of the bucket's count in all processes, this request included; 0 if Redis does not answer."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._questions.append(_Question(bucket, window, window_s, future))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="rates-ask")
        return future

    async def _ask_all(self) -> None:
        """Send all pending requests in one round trip."""
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
                if known[0] == question.window and count > known[1]:  # a past window no longer matters
                    self._set(question.bucket, question.window, count)
                if not question.future.done():
                    question.future.set_result(count)
