"""Calls into sandboxes, and a look at who lives."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from app.jobs.sandbox.call import SandboxCall
from tests.support import sandbox_functions
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
HERE = sandbox_functions.__name__
SECRETS = {
    "MILLRACE_API_SECRET": "s3cret-value-1",
    "MILLRACE_DATABASE_URL": "s3cret-value-2",
    "MILLRACE_REDIS_URL": "s3cret-value-3",
    "MILLRACE_EMBEDDER_API_KEY": "s3cret-value-4",
    "POSTGRES_PASSWORD": "s3cret-value-5",
    "MILLRACE_SOME_URL": "https://user:s3cret-value-6@host/",
}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")


def make(name: str, /, *, time_limit_s: float | None = 30, memory_mb: int | None = 1024, **rest: Any) -> SandboxCall:
    names = ("blob", "on_progress", "grace_s", "cpu_s", "programs")
    options = {"access": rest.pop("access", "open")} | {key: rest.pop(key) for key in names if key in rest}
    return SandboxCall(f"{HERE}:{name}", rest, time_limit_s=time_limit_s, memory_mb=memory_mb, **options)


def call(name: str, /, **rest: Any) -> Any:
    return make(name, **rest).run()


def is_alive(pid: int) -> bool:
    """Running, and no zombie that only waits for its parent."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return sys.platform != "linux"


def pids_in(note: Path) -> list[int]:
    wait_until(note.exists, what="the sandbox's note of its processes")
    return [int(word) for word in note.read_text().split()]


def all_dead(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), timeout_s=3, what=f"the end of all of {pids}")


# What comes back
