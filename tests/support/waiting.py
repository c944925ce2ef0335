"""Waiting for what must become true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.core.http import HTTPError

T = TypeVar("T")

POLL_S = 0.02


def wait_until(condition: Callable[[], T], *, timeout_s: float = 20.0, what: str, poll_s: float = POLL_S) -> T:
    """The first true answer of `condition`; fails the test, naming `what`, when there was none in time.

    A server that does not answer yet is waited for like one that answers wrongly.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            answer = condition()
        except HTTPError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_s:g} s for {what}: {error!r}") from error
            time.sleep(poll_s)
            continue
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}; last answer: {answer!r}")
        time.sleep(poll_s)


async def wait_until_async(condition: Callable[[], Awaitable[T]], *, timeout_s: float = 20.0, what: str) -> T:
    """Like `wait_until`, for a condition that is awaited."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}; last answer: {answer!r}")
        await asyncio.sleep(POLL_S)
