"""Identity of a worker's process: its host and its start time."""

from __future__ import annotations

import os
import platform
import re
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def this_host() -> str:
    """Return `name|boot id|pid namespace`: within it a pid names one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        boot = namespace = "0"
    return f"{platform.node()}|{boot}|{namespace}"


def process_start(pid: int) -> int:
    """Return the process start time in clock ticks since boot; detects PID reuse.

    0 if unknown, or if the process has exited or is a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def has_exited(host: str, pid: int, pid_birth: int) -> bool:
    """Return True if the process has surely exited; False for one of another host or pid namespace."""
    if host != this_host():
        return False
    if pid_birth:
        return process_start(pid) != pid_birth
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
