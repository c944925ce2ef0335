"""The event loop of a worker's `async def` jobs: one watched daemon thread."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from app.core import clock, metrics
from app.core.logging import get_logger

try:
    import uvloop

    _new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
except ImportError:  # no wheel for this platform
    _new_loop = asyncio.new_event_loop

T = TypeVar("T")
TURN_S = 0.25
BOOT_TIMEOUT_S = 10.0

log = get_logger(__name__)


class JobLoop:
    """A loop in a daemon thread; Dramatiq's own loop thread is not a daemon and keeps a stopped worker alive."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = _new_loop()
        self.last_turn = clock.monotonic()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs-loop", daemon=True)

    def start(self) -> None:
        """Raises RuntimeError if the loop does not turn."""
        self._thread.start()
        if not self._running.wait(BOOT_TIMEOUT_S):
            raise RuntimeError("the event loop did not start")

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    @property
    def stalled_s(self) -> float:
        """Seconds since the loop's last turn, beyond the usual interval."""
        return max(0.0, clock.monotonic() - self.last_turn - TURN_S)

    def stack(self) -> str:
        """Return the stack of the loop's thread."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else ""

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
