"""Attributes of the running process that the kernel keeps: dumpable, name, death signal, open descriptors."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36


def prctl(option: int, value: int | bytes, third: int = 0) -> bool:
    """Call prctl(2) for this process; return False if it failed, or outside Linux."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, third, 0, 0) == 0)


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
