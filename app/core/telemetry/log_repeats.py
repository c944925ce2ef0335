"""A line about a service that is away is logged when it changes, then once a minute with the number of repeats."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from app.core import clock

INTERVAL_S = 60.0
MAX_KNOWN_LINES = 1000
# Lines with other fields name an object, such as a job or a URL, and each of them is wanted.
_SERVICE_FIELDS = {"event", "reason", "service", "code", "exc_info", "ends", "events", "jobs", "lines", "held"}


class Repeats:
    """A structlog processor; it drops a line whose event and reason were logged less than a minute ago."""

    def __init__(self, now: Callable[[], float] = clock.monotonic) -> None:
        self._now = now
        # Time of the last line and number of those dropped since, by logger, event and reason.
        self._known: dict[tuple[str, ...], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
        """Return the event, with `repeated` if lines like it were dropped. Raises DropEvent for a repetition."""
        reason = event.get("reason") or _error_text(event.get("exc_info"))
        if reason is None or not event.keys() <= _SERVICE_FIELDS:
            return event
        key = (str(getattr(logger, "name", "")), str(event["event"]), str(event.get("service", "")), str(reason))
        now = self._now()
        with self._lock:
            logged_at, repeated = self._known.get(key, (None, 0))
            if logged_at is not None and now - logged_at < INTERVAL_S:
                self._known[key] = (logged_at, repeated + 1)
                raise structlog.DropEvent
            if len(self._known) >= MAX_KNOWN_LINES:
                self._known.clear()
            self._known[key] = (now, 0)
        return {**event, "repeated": repeated} if repeated else event

    def forget(self, event: str) -> None:
        """Log the next line of this event at once: the fault is over."""
        with self._lock:
            self._known = {key: value for key, value in self._known.items() if key[1] != event}


def _error_text(exc_info: Any) -> str | None:
    if not exc_info:
        return None
    error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    return None if error is None else f"{type(error).__name__}: {error}"
