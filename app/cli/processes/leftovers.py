"""Programs of a supervisord that was killed: find them and end them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

POLL_S = 0.1
PROC = Path("/proc")


def find(socket: Path) -> dict[int, str]:
    """Return pid and program of each process that a supervisord with this socket has started; {} without /proc."""
    mark, programs = f"MILLRACE_SOCKET={socket}".encode(), {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            if mark in variables and int(folder.name) != os.getpid() and not _is_zombie(folder):
                names = [name for name in variables if name.startswith(b"MILLRACE_PROGRAM=")]
                programs[int(folder.name)] = names[0].partition(b"=")[2].decode() if names else "redis"
    return programs


def end(socket: Path, timeout_s: float) -> None:
    """End these processes: a SIGTERM to each, and after the timeout a SIGKILL."""
    _signal(list(_heads(find(socket))), signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while pids := find(socket):
        if time.monotonic() > deadline:
            _signal(list(pids), signal.SIGKILL)
        time.sleep(POLL_S)


def _heads(programs: dict[int, str]) -> set[int]:
    """Return the processes whose parent is another program: a program itself stops its children."""
    return {pid for pid in programs if _parent_of(pid) not in programs}


def _parent_of(pid: int) -> int:
    try:
        return int(_stat(PROC / str(pid))[1])
    except (OSError, IndexError, ValueError):
        return 0


def _is_zombie(folder: Path) -> bool:
    return _stat(folder)[0] == "Z"


def _stat(folder: Path) -> list[str]:
    """Return the fields after the name: state, parent, …"""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
