"""The running process: what the kernel keeps of it (dumpable, name, death signal), and its end."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import NoReturn

EXIT_SOFTWARE = 70  # sysexits.h: internal software error

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36


@lru_cache(maxsize=1)
def libc() -> ctypes.CDLL:
    """Return the C library; loading it again takes as long as a hundred calls."""
    return ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int | bytes) -> bool:
    """Call prctl(2) for this process; return False if it failed, or outside Linux."""
    return sys.platform == "linux" and bool(libc().prctl(option, value, 0, 0, 0) == 0)


def hide_memory() -> bool:
    """Close /proc/PID/environ, /proc/PID/mem and ptrace of this process to other processes of the same user.

    No core file is written any more. The next execve undoes it. A root user with CAP_SYS_PTRACE is not stopped.
    """
    return prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(signum: int) -> bool:
    """Have the kernel send `signum` to this process when its parent dies; check getppid() afterwards."""
    return prctl(_PR_SET_PDEATHSIG, signum)


def adopt_orphans() -> bool:
    """Become the parent of all descendants whose parent dies, so that none can escape."""
    return prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    prctl(_PR_SET_NAME, name.encode()[:15])


def leave(exit_code: int) -> NoReturn:
    """End this process at once: no thread that a library or a user's module has left running is waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # it may be closed
            stream.flush()
    os._exit(exit_code)


def leave_after(run: Callable[[], int | None]) -> NoReturn:
    """Call `run` and leave with its exit code, also if it raises SystemExit. Any other error ends Python as usual."""
    try:
        exit_code = run() or 0
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
    leave(exit_code)


def leave_when_overdue(seconds: float) -> None:
    """End this process with EXIT_SOFTWARE and its stacks on stderr if it still runs after this time."""

    def wait() -> None:
        threading.Event().wait(seconds)
        sys.stderr.write(f"millrace: the stop took longer than {seconds:g} s\n")
        faulthandler.dump_traceback(all_threads=True)
        os._exit(EXIT_SOFTWARE)

    threading.Thread(target=wait, name="overdue", daemon=True).start()
