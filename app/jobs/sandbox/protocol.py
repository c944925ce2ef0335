"""Frames from a sandbox, read with distrust: a line is a JSON object, or the sandbox counts as crashed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from app.core import errors
from app.core.durations import FALLBACK_RETRY_S
from app.core.errors import AppError, LimitReached, SandboxCrashed, Snooze, Unavailable
from app.jobs.sandbox.child import MAX_RESULT_BYTES

_MAX_FRAME_BYTES = MAX_RESULT_BYTES + 256 * 1024


class SandboxFailed(Exception):
    """An error of the function that is not of our error tree, as text: type name, message and traceback.

    permanent: the same call would fail the same way (its result is too large, or not JSON).
    """

    def __init__(self, type_name: str, message: str, traceback: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        self.permanent = permanent

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class SandboxTraceback(Exception):
    """Cause of an error of our tree that was raised in a sandbox: the traceback there, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class FrameReader:
    """Turns bytes into JSON objects. Raises SandboxCrashed for other lines, and for lines that are too long."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        return not self._buffer

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        seen = len(self._buffer)
        self._buffer += chunk
        while (end := self._buffer.find(b"\n", seen)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            seen = 0
            yield _decoded(line)
        if len(self._buffer) > _MAX_FRAME_BYTES:
            reason = f"sandbox answered with a line of more than {_MAX_FRAME_BYTES:,} bytes"
            raise SandboxCrashed(reason, by_code=True)


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        raise garbage(line) from None
    if not isinstance(frame, dict):
        raise garbage(line)
    return frame


def garbage(frame: object) -> SandboxCrashed:
    """Return the error for an unreadable answer."""
    return SandboxCrashed(f"sandbox answered with an unreadable frame: {str(frame)[:80]!r}", by_code=True)


def rebuild_error(error: dict[str, Any]) -> Exception:
    """Return the error that the sandbox described, as the same class if that belongs to our tree.

    Raises KeyError, TypeError or ValueError if the description is malformed.
    """
    message, trace, base, code = str(error["message"]), str(error["traceback"]), error["base"], error["code"]
    kind = getattr(errors, base, None) if isinstance(base, str) else None
    if not (isinstance(kind, type) and issubclass(kind, AppError)):
        return SandboxFailed(str(error["type"]), message, trace, permanent=error["permanent"] is True)
    after_s = error["retry_after_s"]
    delay_s = FALLBACK_RETRY_S if after_s is None else float(after_s)
    failure: AppError
    if issubclass(kind, LimitReached):
        failure = kind(message, delay_s, code=code)
    elif issubclass(kind, Snooze):
        failure = kind(delay_s, message, code=code)
    elif issubclass(kind, Unavailable):
        failure = kind(message, retry_after_s=None if after_s is None else delay_s, code=code)
    else:
        failure = kind(message, code=code, errors=list(error["errors"]))
    failure.__cause__ = SandboxTraceback(trace)
    return failure
