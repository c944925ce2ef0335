"""Memory of all processes of a sandbox and size of its folder, which no limit of the kernel covers; read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.core.errors import AppError, InvalidInput, SandboxCrashed, SandboxOutOfMemory
from app.jobs.sandbox import box
from app.jobs.sandbox.pool import Sandbox

CHECK_S = 0.1
MAX_PROCESSES = 200
# Beyond what lay in the folder at the start.
MAX_FOLDER_BYTES = 512 * box.MIB
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """Memory and disk that a call takes beyond the reach of its kernel limits."""

    def __init__(self, sandbox: Sandbox, folder: Path | None, memory_mb: int | None) -> None:
        self._sandbox = sandbox
        self._memory_bytes = None if memory_mb is None else memory_mb * box.MIB + box.MAX_GROWTH_BYTES
        self._memory_mb = memory_mb
        self._folder = folder if sandbox.access == "closed" else None
        self._folder_bytes = 0
        self._folder_bytes = self._size() + MAX_FOLDER_BYTES

    def fault(self) -> AppError | None:
        """Return the error if the sandbox has taken too much."""
        if self._folder is not None and self._size() > self._folder_bytes:
            return InvalidInput(f"more than {MAX_FOLDER_BYTES // box.MIB} MiB would be written", code="document_size")
        assert self._sandbox.pid is not None
        pids = list(_descendants(self._sandbox.pid))
        if len(pids) < 2:
            return None  # the kernel limits the memory of one process
        if len(pids) > MAX_PROCESSES:
            return SandboxCrashed(f"the call started more than {MAX_PROCESSES} processes")
        if self._memory_bytes is not None and self._memory_of(pids) > self._memory_bytes:
            return SandboxOutOfMemory(f"its processes needed more memory than its limit of {self._memory_mb} MiB")
        return None

    def _size(self) -> int:
        total = 0
        with suppress(OSError):
            for folder, _, files in os.walk(self._folder) if self._folder is not None else ():
                for name in files:
                    with suppress(OSError):
                        total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def _memory_of(self, pids: list[int]) -> int:
        """Return the memory of these processes; what several of them share counts once if that is above the limit."""
        total = sum(map(_resident_bytes, pids))
        if self._memory_bytes is None or total <= self._memory_bytes:
            return total
        return sum(map(_proportional_bytes, pids))


def _descendants(pid: int) -> Iterator[int]:
    """Yield the process and all below it; without /proc only itself."""
    todo = [pid]
    while todo:
        current = todo.pop()
        yield current
        with suppress(OSError):
            for task in os.listdir(f"/proc/{current}/task"):
                with suppress(OSError), open(f"/proc/{current}/task/{task}/children", encoding="ascii") as children:
                    todo += map(int, children.read().split())


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES
    return 0


def _proportional_bytes(pid: int) -> int:
    """Return the proportional set size, or the resident one where another user's process hides it."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as smaps:
        return next((int(line.split()[1]) * 1024 for line in smaps if line.startswith("Pss:")), 0)
    return _resident_bytes(pid)
