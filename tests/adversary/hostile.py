"""Code of a document that has taken over its parser: it runs in a closed sandbox and tries to get out.

Each function returns what it got, or the name of the error that stopped it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import Interrupted, Snooze, Stale

MIB = 1024 * 1024
_PTRACE_ATTACH = 16
_IO_URING_SETUP = 425


def _attempt(step: Callable[[], Any]) -> Any:
    try:
        return step()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except (MemoryError, ValueError) as error:
        return type(error).__name__


def read_file(blob: Path, path: str) -> Any:
    return _attempt(lambda: Path(path).read_bytes().decode(errors="replace"))


def list_folder(blob: Path, path: str) -> Any:
    return _attempt(lambda: os.listdir(path))


def write_file(blob: Path, path: str) -> Any:
    return _attempt(lambda: Path(path).write_text("taken over"))


def change_file(blob: Path, path: str) -> list[Any]:
    """All ways to change a file that needs no open: mode, owner, times, length, name."""
    steps: list[Callable[[], Any]] = [
        lambda: os.chmod(path, 0o777),
        lambda: os.chown(path, os.getuid(), os.getgid()),
        lambda: os.utime(path, (0, 0)),
        lambda: os.truncate(path, 0),
        lambda: os.rename(path, path + ".gone"),
        lambda: os.rename(path, blob.with_name("mine")),
        lambda: os.unlink(path),
    ]
    return [_attempt(step) for step in steps]


def link_to(blob: Path, path: str) -> list[Any]:
    """Put a link to a file in the folder, for the host to follow."""
    steps = [
        lambda: os.symlink(path, blob.with_suffix(".md")),
        lambda: os.link(path, blob.with_suffix(".md")),
        lambda: os.mkfifo(blob.with_suffix(".md")),
    ]
    return [_attempt(step) for step in steps]


def connect(blob: Path, address: str | list[Any]) -> Any:
    def talk() -> str:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as end:
            end.connect(address if isinstance(address, str) else tuple(address))
            end.sendall(b"PING\r\n")
            return end.recv(100).decode()

    return _attempt(talk)


def open_ring(blob: Path) -> int:
    """io_uring connects and opens files without the system calls of that name."""
    parameters = ctypes.create_string_buffer(248)
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syscall(_IO_URING_SETUP, 4, parameters) < 0 else 0


def environment(blob: Path) -> dict[str, str]:
    return dict(os.environ)


def search_memory(blob: Path, reversed_text: str) -> bool:
    """Look for a text in all memory of this process, through the addresses that Python knows."""
    import gc

    text = reversed_text[::-1]
    for item in gc.get_objects():
        values = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple, set)) else ()
        if any(isinstance(value, str) and text in value for value in list(values)):
            return True
    return False


def descriptors(blob: Path) -> list[int]:
    def is_open(number: int) -> bool:
        try:
            os.fstat(number)
        except OSError:
            return False
        return True

    return [number for number in range(3, 256) if is_open(number)]


def signal_process(blob: Path, pid: int) -> Any:
    return _attempt(lambda: os.kill(pid, signal.SIGKILL))


def look_into(blob: Path, pid: int) -> list[Any]:
    def attach() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(_PTRACE_ATTACH, pid, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        return 0

    steps: list[Callable[[], Any]] = [
        lambda: Path(f"/proc/{pid}/environ").read_text(),
        lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
        lambda: os.readlink(f"/proc/{pid}/fd/0"),
        attach,
    ]
    return [_attempt(step) for step in steps]


def raise_limits(blob: Path) -> list[Any]:
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
    infinity = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    return [_attempt(partial(resource.setrlimit, kind, infinity)) for kind in kinds]


def take_memory(blob: Path, mib: int) -> int:
    """Take memory after raising the soft limit as far as it goes."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (hard, hard))
    return len(bytearray(mib * MIB))


def fork_and_take(blob: Path, processes: int, mib: int) -> Any:
    """Take memory in several processes, each below the limit."""

    def step() -> int:
        started = 0
        for _ in range(processes):
            if os.fork() == 0:
                taken = bytearray(mib * MIB)
                for at in range(0, len(taken), 4096):
                    taken[at] = 1
                threading.Event().wait()
            started += 1
        threading.Event().wait()
        return started

    return _attempt(step)


def start_program(blob: Path, path: str) -> Any:
    return _attempt(lambda: subprocess.run([path, "-c", "exit 0"], check=False, timeout=10).returncode)


def become_program(blob: Path, path: str) -> Any:
    return _attempt(lambda: os.execv(path, [path, "-c", "exit 0"]))


def call_clone(blob: Path) -> int:
    """Fork by the bare system call; clone3 hides its flags from filters."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD)
    pid = libc.syscall(435, arguments, 88)
    if pid == 0:
        os._exit(0)
    return ctypes.get_errno() if pid < 0 else 0


def fill_one_file(blob: Path, mib: int) -> None:
    with blob.with_name("big").open("wb") as file:
        for _ in range(mib):
            file.write(b"x" * MIB)


def fill_many_files(blob: Path, files: int, mib: int) -> int:
    for number in range(files):
        blob.with_name(f"big-{number}").write_bytes(b"x" * (mib * MIB))
    threading.Event().wait(20)
    return files


def share_memory(blob: Path) -> list[Any]:
    """Memory that no limit of a process counts."""
    libc = ctypes.CDLL(None, use_errno=True)

    def segment() -> int:
        identifier = libc.shmget(0, 64 * MIB, 0o1600)
        if identifier < 0:
            raise OSError(ctypes.get_errno(), "shmget")
        return int(identifier)

    return [_attempt(segment), _attempt(lambda: os.memfd_create("hoard"))]


def use_a_thread(blob: Path) -> str:
    """Threads are allowed."""
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append("ran"))
    thread.start()
    thread.join()
    return results[0]


def users(blob: Path) -> list[int]:
    return [*os.getresuid(), *os.getresgid(), *os.getgroups()]


def remember(blob: Path) -> list[Any]:
    """Change the parser for all documents to come."""
    seen = getattr(sys, "hostile_mark", None)
    sys.hostile_mark = "taken over"  # type: ignore[attr-defined]
    return [seen, os.getpid()]


def fail_as(blob: Path, name: str) -> None:
    raise {"Stale": Stale("gone"), "Interrupted": Interrupted("again"), "Snooze": Snooze(10**9, "later")}[name]


def print_lines(blob: Path, text: str) -> None:
    os.write(2, text.encode())


def work_as_usual(blob: Path) -> str:
    """An honest parser: read the document, write next to it, import late, use a temporary file."""
    import tempfile
    from xml.dom import minidom

    assert minidom.__name__
    blob.with_suffix(".md").write_text(blob.read_text().upper())
    with tempfile.TemporaryFile() as file:
        file.write(b"scratch")
    return blob.with_suffix(".md").read_text()
