"""The peer: stock Dramatiq on Redis without a ledger, a threaded and an AsyncIO actor that do nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO

broker = RedisBroker(url=os.environ.get("STOCK_REDIS_URL", "redis://127.0.0.1:6379/0"))  # type: ignore[no-untyped-call]
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


def connect(url: str) -> None:
    """Send to another Redis from now on."""
    other = RedisBroker(url=url)  # type: ignore[no-untyped-call]
    broker.client, broker.scripts = other.client, other.scripts


@dramatiq.actor(queue_name="default")
def noop_thread(number: int) -> None:
    return None


@dramatiq.actor(queue_name="default")
async def noop_async(number: int) -> None:
    return None


@dramatiq.actor(queue_name="default")
def touch(path: str) -> None:
    Path(path).write_text(repr(time.time()))
