"""The W3C trace that a request, its jobs and their outgoing calls belong to, carried by the context."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar

# Version 00 is the only one there is; a trace or a span of zeros means none.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def checked(text: str | None) -> str | None:
    """The traceparent, None where it is none."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def current() -> str | None:
    """The traceparent of what runs now."""
    return _current.get()


def enter(traceparent: str | None) -> None:
    """What runs from now on in this thread or task belongs to this trace, or to none."""
    _current.set(traceparent)


def trace_id(traceparent: str) -> str:
    """The part that all spans of a trace share."""
    return traceparent[3:35]


def child() -> str | None:
    """A traceparent for a call that leaves from here: the same trace, a span of its own."""
    parent = _current.get()
    return None if parent is None else f"{parent[:36]}{os.urandom(8).hex()}{parent[52:]}"
