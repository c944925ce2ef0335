"""The process behind `warm`: everything imported, one thread, a fork for each request that comes over its socket."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
MORE = ("app.main", "app.jobs.relay.relay", "uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on")


def warm_up() -> None:
    import app.__main__
    import app.cli

    for module in pkgutil.walk_packages(app.cli.__path__, "app.cli."):
        importlib.import_module(module.name)
    for name in MORE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


class Forks:
    """`serve()` returns in a child, with its request; in the server itself it ends the program."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._status: dict[int, int] = {}
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake)

    def serve(self) -> dict[str, Any]:
        while True:
            ready = select.select([self._requests.fileno(), self._woken], [], [])[0]
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._reap()
            if self._requests.fileno() in ready:
                message, descriptors, _, _ = socket.recv_fds(self._requests, 1 << 20, 4)
                if not message:
                    self._leave()
                if self._fork(descriptors):
                    return dict(json.loads(message))

    def _fork(self, descriptors: list[int]) -> bool:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            self._status[pid] = descriptors[3]
            return False
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        # Written by the child, so that its session exists before a test learns its id.
        os.write(descriptors[3], f"{os.getpid()}\n".encode())
        self._become_child(descriptors)
        return True

    def _become_child(self, descriptors: list[int]) -> None:
        """In a child: nothing of the server's stays open, and signals do what they do in a program that begins."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        for descriptor in (*descriptors, *self._status.values(), self._woken, self._wake):
            os.close(descriptor)
        self._requests.close()

    def _reap(self) -> None:
        while self._status:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            descriptor = self._status.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(descriptor, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(descriptor)

    def _leave(self) -> None:
        """The tests are over, or dead: so is all that they have started."""
        for pid in self._status:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
        os._exit(0)


def become(what: dict[str, Any]) -> None:
    """The environment, folder and streams of a fresh `python -m app`."""
    os.chdir(what["cwd"])
    os.environ.clear()
    os.environ.update(what["env"])
    time.tzset()
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [what["cwd"], *path, *sys.path[1:]]
    at_once = "PYTHONUNBUFFERED" in os.environ
    out, err = (io.BufferedWriter(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = io.TextIOWrapper(out, write_through=at_once, line_buffering=at_once)
    sys.stderr = io.TextIOWrapper(err, errors="backslashreplace", line_buffering=True)
    program = sys.modules["app.__main__"]
    # A lookup of the main program (by a spawned process, by a message with its name) gets the real one.
    sys.modules["__main__"] = program
    sys.argv = [str(program.__file__), *what["words"]]


def main() -> None:
    warm_up()
    become(Forks(socket.socket(fileno=int(sys.argv[1]))).serve())
    import app.__main__

    app.__main__.main()


if __name__ == "__main__":
    main()
