"""What a function in a sandbox sees of its host: whom it reports to, and the soft limit that interrupts it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from app.core.clock import monotonic
from app.core.errors import TimeLimitExceeded

REPORT_EVERY_S = 0.05
# One more than the host keeps of a run, so that it can say that there were more.
MOST_LINES = 1001


class SoftLimit:
    """Turns the signal into an exception, but only while the function runs and never in the midst of a frame."""

    def __init__(self) -> None:
        self.limit_s: float | None = None
        self.running = False
        self.guarded = False
        self.late = False

    def on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        if self.running and self.guarded:
            self.late = True
        elif self.running:
            self.expire()

    def expire(self) -> None:
        self.late = False
        raise TimeLimitExceeded(f"ran longer than its time limit of {self.limit_s or 0:g} s")


class SandboxProgress:
    """Reports to the host, at most 20 a second: a stage's first and the very last are never dropped."""

    def __init__(self, send: Callable[[dict[str, Any]], None], limit: SoftLimit) -> None:
        self._send = send
        self._limit = limit
        self._lock = threading.Lock()
        self._pending: dict[str, Any] = {}
        self._stage: str | None = None
        self._sent_at = -math.inf
        self._timer: threading.Timer | None = None
        self._closed = False
        self._lines = 0

    def report(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        unit: str | None = None,
        stage: str | None = None,
        message: str | None = None,
    ) -> None:
        """From any thread of the sandbox; after the call's end it does nothing."""
        said = {"done": done, "total": total, "unit": unit, "stage": stage, "message": message}
        self._guarded(self._take, {name: value for name, value in said.items() if value is not None})

    def say(self, line: dict[str, Any]) -> None:
        """A line for the job's log, which its host keeps; the first MOST_LINES of a call."""
        self._guarded(self._say, line)

    def _guarded(self, step: Callable[[dict[str, Any]], None], what: dict[str, Any]) -> None:
        """A soft limit waits for the frame that is being sent."""
        on_main = threading.current_thread() is threading.main_thread()
        if on_main:
            self._limit.guarded = True
        try:
            with self._lock:
                step(what)
        finally:
            if on_main:
                self._limit.guarded = False
        if on_main and self._limit.late:
            self._limit.expire()

    def _say(self, line: dict[str, Any]) -> None:
        self._lines += 1
        if not self._closed and self._lines <= MOST_LINES:
            self._send({"log": line})

    def _take(self, report: dict[str, Any]) -> None:
        if self._closed:
            return
        new_stage = report.get("stage", self._stage) != self._stage
        if new_stage:
            self._flush()
            self._stage = report["stage"]
        self._pending.update(report)
        if new_stage or monotonic() - self._sent_at >= REPORT_EVERY_S:
            self._flush()
        elif self._timer is None:
            self._timer = threading.Timer(REPORT_EVERY_S, self._on_timer)
            self._timer.daemon = True
            with suppress(RuntimeError):  # no memory for a thread: the next report or the end sends it
                self._timer.start()

    def _flush(self) -> None:
        if self._pending:
            report, self._pending = self._pending, {}
            self._send({"progress": report})
            self._sent_at = monotonic()

    def _on_timer(self) -> None:
        with self._lock, suppress(OSError):  # the host has let go: this process is about to be killed
            self._timer = None
            if not self._closed:
                self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()
            self._closed = True
            timer, self._timer = self._timer, None
        if timer is not None and timer.ident is not None:
            timer.cancel()
            timer.join()
