"""Run a browser and kill it when its parent ends, or when it exceeds its time or memory.

    python -I browser_keeper.py SECONDS MIB PROGRAM ARGUMENTS...

When standard input ends, because the parent closed it or died, all processes are killed. The browser gets a temporary
folder, which replaces {folder} in its arguments and is removed afterwards. The exit code is the browser's, or one of
those pids_below. This is a separate program that imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

OUT_OF_TIME = 101
OUT_OF_MEMORY = 102
STDIN_CLOSED = 103
POLL_S = 0.25
_PR_SET_CHILD_SUBREAPER = 36


def main(limit_s: float, memory_mb: int, command: list[str]) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of standard input stops this program
    if sys.platform == "linux":
        # A process that leaves the group becomes a child of this one when its parent dies, and is found that way.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.nice(5)  # the worker's work has priority
    folder = tempfile.mkdtemp(prefix="millrace-browser-")
    try:
        command = [word.replace("{folder}", folder) for word in command]
        environment = {**os.environ, "HOME": folder, "TMPDIR": folder}
        browser = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        try:
            return _watch(browser, time.monotonic() + limit_s, memory_mb * 1024)
        finally:
            _kill(browser)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watch(browser: subprocess.Popen[bytes], deadline: float, memory_kb: int) -> int:
    while True:
        if select.select([sys.stdin], [], [], POLL_S if browser.poll() is None else 0)[0]:
            return STDIN_CLOSED
        code = browser.poll()
        if code is not None:
            return code if code >= 0 else 1
        if time.monotonic() > deadline:
            return OUT_OF_TIME
        if sum(map(_memory_kb, _descendants())) > memory_kb:
            return OUT_OF_MEMORY


def _kill(browser: subprocess.Popen[bytes]) -> None:
    """Kill all descendants until none is left."""
    browser.poll()
    while pids_below := _descendants():
        for pid in pids_below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    if browser.poll() is None:
        browser.kill()
        browser.wait()


def _descendants() -> list[int]:
    """Return the pids of all descendants; empty without /proc, where only the browser is known."""
    children: dict[int, list[int]] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as stat:
            parent = int(stat.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    descendants, todo = [], [os.getpid()]
    while todo:
        pids_below = children.get(todo.pop(), [])
        descendants += pids_below
        todo += pids_below
    return descendants


def _memory_kb(pid: int) -> int:
    """Return the proportional set size: memory shared by several processes counts once in their sum."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as smaps:
        return next((int(line.split()[1]) for line in smaps if line.startswith("Pss:")), 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
