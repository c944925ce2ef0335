"""Progress reports from a sandbox to its host, and the soft limit that interrupts the function."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from app.core.clock import monotonic
from app.core.errors import TimeLimitExceeded

MIN_REPORT_GAP_S = 0.05
# One more than the host keeps of a run, so that it can log that there were more.
MAX_LINES_PER_CALL = 1001


class SoftLimit:
    """Turns the signal into an exception, but only while the function runs and never while a frame is sent."""

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
    """Reports to the host, at most 20 a second; the first report of a stage and the last of all are never dropped."""

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
        """Send a report, from any thread of the sandbox; ignored after the call's end."""
        fields = {"done": done, "total": total, "unit": unit, "stage": stage, "message": message}
        self._run_guarded(self._take, {name: value for name, value in fields.items() if value is not None})

    def send_line(self, line: dict[str, Any]) -> None:
        """Send a line of the job's log to the host; only the first MAX_LINES_PER_CALL of a call."""
        self._run_guarded(self._send_line, line)

    def _run_guarded(self, step: Callable[[dict[str, Any]], None], data: dict[str, Any]) -> None:
        """Run the step; a soft limit waits until its frame is sent."""
        on_main = threading.current_thread() is threading.main_thread()
        if on_main:
            self._limit.guarded = True
        try:
            with self._lock:
                step(data)
        finally:
            if on_main:
                self._limit.guarded = False
        if on_main and self._limit.late:
            self._limit.expire()

    def _send_line(self, line: dict[str, Any]) -> None:
        self._lines += 1
        if not self._closed and self._lines <= MAX_LINES_PER_CALL:
            self._send({"log": line})

    def _take(self, report: dict[str, Any]) -> None:
        if self._closed:
            return
        new_stage = report.get("stage", self._stage) != self._stage
        if new_stage:
            self._flush()
            self._stage = report["stage"]
        self._pending.update(report)
        if new_stage or monotonic() - self._sent_at >= MIN_REPORT_GAP_S:
            self._flush()
        elif self._timer is None:
            self._timer = threading.Timer(MIN_REPORT_GAP_S, self._on_timer)
            self._timer.daemon = True
            with suppress(RuntimeError):  # no memory for a thread: the next report or the end sends it
                self._timer.start()

    def _flush(self) -> None:
        if self._pending:
            report, self._pending = self._pending, {}
            self._send({"progress": report})
            self._sent_at = monotonic()

    def _on_timer(self) -> None:
        with self._lock, suppress(OSError):  # the host has closed its end: this process is about to be killed
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
