"""The W3C trace of a request, its jobs and their outgoing calls, carried by the context."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar

# Version 00 is the only one; a trace or a span of zeros is invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def checked(text: str | None) -> str | None:
    """Return the traceparent, None if it is invalid."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def current() -> str | None:
    """Return the current traceparent."""
    return _current.get()


def enter(traceparent: str | None) -> None:
    """Set the trace of this thread or task, or none."""
    _current.set(traceparent)


def trace_id(traceparent: str) -> str:
    """Return the part that all spans of a trace share."""
    return traceparent[3:35]


def child() -> str | None:
    """Return a traceparent for an outgoing call: the same trace with a new span."""
    parent = _current.get()
    return None if parent is None else f"{parent[:36]}{os.urandom(8).hex()}{parent[52:]}"
