"""State of a process that a job's code may change and that a later job would inherit."""

from __future__ import annotations

import gc
import locale
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any, NamedTuple

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))
# Set by the sandbox itself for each call.
_OUR_LIMITS = {resource.RLIMIT_AS, resource.RLIMIT_CPU}


class ProcessState(NamedTuple):
    """A snapshot. Two that are equal mean that a later job finds the process as the first one did."""

    folder: str
    umask: int
    environment: dict[str, str]
    locale: str
    handlers: tuple[Any, ...]
    blocked_signals: frozenset[int]
    timers: tuple[float, ...]
    limits: tuple[tuple[int, int], ...]
    import_path: tuple[str, ...]
    interpreter: tuple[Any, ...]

    @classmethod
    def now(cls, ignored_signal: int) -> ProcessState:
        """Take a snapshot; the handler of `ignored_signal` is set by the sandbox for each call."""
        umask = os.umask(0o077)
        os.umask(umask)
        return cls(
            folder=_folder(),
            umask=umask,
            environment=dict(os.environ),
            locale=locale.setlocale(locale.LC_ALL),
            handlers=tuple(
                signal.getsignal(number) for number in sorted(signal.valid_signals()) if number != ignored_signal
            ),
            blocked_signals=frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            timers=tuple(signal.getitimer(timer)[0] for timer in _TIMERS),
            limits=tuple(resource.getrlimit(kind) for kind in _LIMITS if kind not in _OUR_LIMITS),
            import_path=tuple(sys.path),
            interpreter=(
                sys.getrecursionlimit(), sys.getswitchinterval(), sys.stdout, sys.stderr, sys.stdin, sys.gettrace(),
                sys.getprofile(), sys.excepthook, threading.excepthook, socket.getdefaulttimeout(), gc.isenabled(),
                tempfile.tempdir, os.getpriority(os.PRIO_PROCESS, 0),
            ),
        )  # fmt: skip


def _folder() -> str:
    with suppress(OSError):
        return os.getcwd()
    return ""
