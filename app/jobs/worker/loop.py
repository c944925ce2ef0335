"""The event loop of a worker's `async def` jobs: one watched daemon thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from app.core import clock, metrics
from app.core.logging import bound, get_logger

try:
    import uvloop

    _new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
except ImportError:  # no wheel for this platform
    _new_loop = asyncio.new_event_loop

T = TypeVar("T")
TURN_S = 0.25
BOOT_TIMEOUT_S = 10.0
# Threads of `asyncio.to_thread` beyond one a job: for the start of jobs, and for requests that jobs share.
SPARE_THREADS = 8

log = get_logger(__name__)


class JobLoop:
    """A loop in a daemon thread; Dramatiq's own loop thread is not a daemon and keeps a stopped worker alive."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = _new_loop()
        self.last_turn = clock.monotonic()
        self._running = threading.Event()
        self._owners: WeakKeyDictionary[asyncio.Task[Any], str] = WeakKeyDictionary()
        self._thread = threading.Thread(target=self._run, name="jobs-loop", daemon=True)

    def start(self, jobs: int) -> None:
        """Start the loop for so many jobs at once. Raises RuntimeError if it does not turn."""
        executor = ThreadPoolExecutor(jobs + SPARE_THREADS, thread_name_prefix="to-thread")
        self.loop.set_default_executor(executor)
        self.loop.set_task_factory(self._make_task)
        self._thread.start()
        if not self._running.wait(BOOT_TIMEOUT_S):
            raise RuntimeError("the event loop did not start")

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    @property
    def stalled_s(self) -> float:
        """Seconds since the loop's last turn, beyond the usual interval."""
        return max(0.0, clock.monotonic() - self.last_turn - TURN_S)

    @property
    def thread_id(self) -> int:
        return self._thread.ident or 0

    def owner(self, task: asyncio.Task[Any]) -> str | None:
        """Return the id of the job whose code started the task."""
        return self._owners.get(task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        job_id = bound().get("job_id")
        if job_id is not None:
            self._owners[task] = str(job_id)
        return task

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._turn)
        self.loop.call_soon(self._running.set)
        self.loop.run_forever()

    def _turn(self) -> None:
        metrics.LOOP_LAG_SECONDS.set(self.stalled_s)
        self.last_turn = clock.monotonic()
        self.loop.call_later(TURN_S, self._turn)
