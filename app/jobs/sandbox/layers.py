"""The layers of a closed sandbox that hold on this machine, found by trying to get out of one."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from app.jobs.sandbox import landlock, process_pool, seccomp
from app.jobs.sandbox.call import SandboxCall

PROBE_LIMIT_S = 30.0
PROBE_MEMORY_MB = 256


class Layer(NamedTuple):
    """A layer; `lack` says why it does not hold, blank if it does. A needed one that lacks is a warning."""

    name: str
    holds: bool
    is_needed: bool
    lack: str


def find_layers() -> list[Layer]:
    """Try each layer in a real sandbox of this process. Raises SandboxCrashed if none can be started."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
        blob = Path(folder) / "probe"
        blob.touch()
        arguments = {"host": os.getpid(), "host_user": os.geteuid()}
        call = SandboxCall(probe, arguments, blob=blob, time_limit_s=PROBE_LIMIT_S, memory_mb=PROBE_MEMORY_MB)
        results: dict[str, bool] = call.run()
    no_seccomp = "no seccomp in this kernel or container"
    if not seccomp.is_known_machine():
        no_seccomp = "its system calls are not filtered on this kind of machine"
    user = "only root can give it one"
    if os.geteuid() == 0:
        user = "root lacks capabilities here, or other users cannot read the program or the temporary folder"
    lacks = {
        "files": f"no Landlock (its version here is {landlock.version()})",
        "network": no_seccomp,
        "processes": no_seccomp,
        "memory": "no limits of address space on this system",
        "other processes": "no Landlock, and no user of its own",
        "own user": user,
    }
    return [Layer(name, results[name], name != "own user", "" if results[name] else lacks[name]) for name in lacks]


def probe(blob: Path, host: int, host_user: int) -> dict[str, bool]:
    """Return the name of each layer and True if it holds. Runs in the sandbox."""
    return {
        "files": _is_denied(lambda: os.listdir("/")) and _is_denied(lambda: Path("/etc/passwd").read_bytes()),
        "network": _is_denied(lambda: socket.socket(socket.AF_INET).close()),
        "processes": _is_denied(_fork),
        "memory": resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY,
        "other processes": _is_denied(lambda: Path(f"/proc/{host}/environ").read_bytes()),
        "own user": os.geteuid() != host_user,
    }


def _is_denied(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def find_layers_alone() -> list[Layer]:
    """Like find_layers, for a program that runs no jobs: its sandboxes end with the call."""
    try:
        return find_layers()
    finally:
        process_pool.stop_pool()
