"""Runs of `async def` actors: on the event loop, without a thread each.

A thread that waits for a coroutine on another thread costs two switches a job, more than the rest of a short job. So
these runs go to the loop in batches; they pass the same middleware as runs in Dramatiq's threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dramatiq.broker import Broker
from dramatiq.middleware import SkipMessage

from app.jobs.worker.loop import JobLoop
from app.jobs.worker.run import Run

# The actor option that holds the coroutine function of a run.
AWAITS = "awaits"
Awaits = Callable[[Run], Awaitable[None]]


class AsyncRunner:
    """Runs as many at once as the worker has threads; the others wait in their order."""

    def __init__(self, broker: Broker, loop: JobLoop) -> None:
        self._broker = broker
        self._loop = loop
        self._waiting: deque[Any] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.limit = 1

    def submit(self, messages: Sequence[Any]) -> None:
        """Run these messages; may be called from any thread."""
        self._loop.loop.call_soon_threadsafe(self._begin, messages)

    def _begin(self, messages: Sequence[Any]) -> None:
        self._waiting.extend(messages)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._tasks) < self.limit:
            message = self._waiting.popleft()
            task = self._loop.loop.create_task(self._process(message))
            message.options["run"].task = task
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._fill()

    async def _process(self, message: Any) -> None:
        """Process a message as Dramatiq's worker thread does."""
        broker = self._broker
        try:
            broker.emit_before("process_message", message)
            await broker.actors[message.actor_name].options[AWAITS](message.options["run"])
        except SkipMessage:
            broker.emit_after("skip_message", message)
        except BaseException as error:  # noqa: BLE001  like Dramatiq: the middleware judges it
            broker.emit_after("process_message", message, exception=error)
        else:
            broker.emit_after("process_message", message, result=None)
