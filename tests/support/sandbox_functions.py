"""Functions that tests run in sandboxes: good, slow, greedy, lying and dying ones.

Only light imports: every test that starts new sandboxes preloads this module.
"""

from __future__ import annotations

import ctypes
import locale
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core.errors import AppError, InvalidInput, LimitReached, Rejected, Snooze, Unavailable
from app.jobs.sandbox import programs
from app.jobs.sandbox.child_progress import SandboxProgress
from tests.support.waiting import wait_until

MIB = 1024 * 1024
_kept: list[bytes] = []


class Malformed(InvalidInput):
    """A room's own error, of a class that the spine does not know."""


class Nameless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


ERRORS: dict[str, BaseException] = {
    "invalid": InvalidInput("no such page: 7", code="page", errors=[{"field": "page"}]),
    "malformed": Malformed("not a PDF"),
    "limit": LimitReached("too fast", 12.5),
    "later": Snooze(12.5, "not yet"),
    "unavailable": Unavailable("down", retry_after_s=3),
    "unavailable-plain": Unavailable("down"),
    "rejected": Rejected("no"),
    "foreign": ZeroDivisionError("by nought"),
    "exit": SystemExit("bye"),
    "nameless": Nameless(),
}


def add(left: int, right: int) -> int:
    return left + right


def echo(value: Any) -> Any:
    return value


def read(blob: Path) -> str:
    return blob.read_text()


def fail(error: str) -> None:
    raise ERRORS[error]


def count(to: int, progress: SandboxProgress) -> int:
    progress.report(stage="count", unit="numbers", total=to)
    for number in range(to):
        progress.report(number + 1)
    return to


def report_and_wait(until: str, progress: SandboxProgress) -> None:
    progress.report(1, 2)
    progress.report(2, 2)
    wait_until(Path(until).exists, what="the host's sign that it has heard the second report")


def segfault() -> None:
    ctypes.string_at(0)


def leave(status: int) -> None:
    os._exit(status)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _channel() -> int:
    return next(fd for fd in range(3, 64) if _is_socket(fd))


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def close_channel() -> None:
    os.close(_channel())
    threading.Event().wait()


def say(text: str) -> None:
    """Straight into the channel, as only a liar or a stray write would."""
    os.write(_channel(), text.encode())
    threading.Event().wait()


def allocate(mib: int) -> int:
    return len(bytearray(mib * MIB))


def keep(mib: int) -> int:
    _kept.append(b"x" * (mib * MIB))
    return os.getpid()


def leave_thread() -> int:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return os.getpid()


def leave_child() -> int:
    subprocess.Popen(["sleep", "600"])
    return os.getpid()


def spin() -> None:
    while True:
        pass


def tidy_up(note: str) -> None:
    """Blocks, and does its duty when the soft limit tells it to end."""
    try:
        threading.Event().wait()
    finally:
        Path(note).write_text("tidy")


def stubborn() -> None:
    while True:
        try:
            threading.Event().wait()
        except AppError:
            continue


def sit(note: str) -> None:
    """Blocks for ever, having started a child in the group and one that has left it; their pids are in `note`."""
    child = subprocess.Popen(["sleep", "600"])
    daemon = (
        "import os, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid()\n"
        "open(sys.argv[1], 'w').write(str(os.getpid())); os.rename(sys.argv[1], sys.argv[2])\n"
        "time.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", daemon, f"{note}.part", f"{note}.daemon"], check=True)
    wait_until(Path(f"{note}.daemon").exists, what="the daemon's pid")
    text = f"{os.getpid()} {child.pid} {Path(f'{note}.daemon').read_text()}"
    Path(f"{note}.part").write_text(text)
    os.rename(f"{note}.part", note)
    child.wait()


def meet(mine: str, other: str) -> bool:
    """True once both of a pair run at the same time."""
    Path(mine).touch()
    wait_until(Path(other).exists, what="the other call")
    return True


def make_noise() -> str:
    print('{"result": "printed"}')
    os.write(1, b'{"result": "written to fd 1"}\n')
    libc = ctypes.CDLL(None)
    libc.puts(b'{"result": "said by C"}')
    libc.fflush(None)
    return "the truth"


def environment() -> dict[str, str]:
    return dict(os.environ)


def raw_environment() -> str:
    return Path("/proc/self/environ").read_bytes().decode(errors="replace")


def descriptors() -> list[int]:
    """Those open beyond stdio, but the one that lists them."""
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")]


def _note_run(blob: Path) -> int:
    with blob.with_name("runs").open("a") as file:
        file.write("x")
    return len(blob.with_name("runs").read_text())


def crash_on(blob: Path, how: str, times: int) -> str:
    """A parser that crashes on its first runs of a document."""
    crashes: dict[str, Callable[[], object]] = {
        "segfault": segfault,
        "abort": lambda: os.abort(),
        "exit": lambda: leave(3),
        "answer": lambda: say("no frame\n"),
    }
    if _note_run(blob) <= times:
        crashes[how]()
    return "read"


def kill_from_outside(blob: Path) -> None:
    _note_run(blob)
    kill_self()


def spin_on(blob: Path) -> None:
    _note_run(blob)
    spin()


def recurse_on(blob: Path) -> None:
    recurse_on(blob)


def allocate_on(blob: Path, mib: int) -> int:
    _note_run(blob)
    return allocate(mib)


def touch(blob: Path, path: str) -> None:
    Path(path).touch()


def run_program(blob: Path, name: str, words: list[str]) -> str:
    ended = programs.run(name, words, timeout_s=20)
    return (ended.stdout + ended.stderr).decode()


CHANGES: dict[str, Callable[[], object]] = {
    "alarm": lambda: signal.alarm(60),
    "timer": lambda: signal.setitimer(signal.ITIMER_PROF, 60),
    "handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}),
    "folder": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o123),
    "environment": lambda: os.environ.update(TZ="Asia/Tokyo"),
    "removed variable": lambda: os.environ.pop("PATH"),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)),
    "recursion limit": lambda: sys.setrecursionlimit(50_000),
    "import path": lambda: sys.path.insert(0, "/nowhere"),
    "standard output": lambda: setattr(sys, "stdout", sys.stderr),
    "socket timeout": lambda: socket.setdefaulttimeout(3),
    "priority": lambda: os.nice(3),
}


def change(name: str, fails: bool = False) -> None:
    """Change the process as careless code does."""
    CHANGES[name]()
    if fails:
        raise ValueError("after the change")


def process_state() -> list[str]:
    """All that a later call would meet, as text."""
    umask = os.umask(0)
    os.umask(umask)
    limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)]
    signals = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)]
    timers = [signal.getitimer(timer)[0] for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF)]
    state = [os.getcwd(), umask, sorted(os.environ.items()), locale.setlocale(locale.LC_ALL), limits, signals, timers]
    state += [signal.pthread_sigmask(signal.SIG_BLOCK, ()), sys.getrecursionlimit(), sys.path, sys.stdout is sys.stderr]
    return [str(value) for value in [*state, socket.getdefaulttimeout(), os.nice(0)]]


def group() -> list[int]:
    return [os.getpid(), os.getpgid(0)]


def interrupted_by(number: int) -> str:
    os.kill(os.getpid(), number)
    return "still here"
