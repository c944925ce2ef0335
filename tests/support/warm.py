"""`python -m app ...` as a process that need not import the program first.

A start of Python with all that the program imports takes a second of a processor, and the suite has a thousand of
them. Here one process a test process has imported it, runs nothing, and forks for each command that it is asked for:
own id, session, environment, folder and descriptors, from `app.__main__` on the same program. What a start does from
the interpreter on is tested where starts are the subject: `up`, `single`, the workers, the chaos and the benchmarks.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Each of them is read by Python itself as it starts; any other than these needs a full start.
_HARMLESS = {"PYTHONUNBUFFERED", "PYTHONPATH"}
_AT_START = ("LANG", "LC_ALL", "LC_CTYPE", "LD_PRELOAD", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX")
# Read by rich as it is imported.
_AT_IMPORT = ("TERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "JUPYTER_COLUMNS")
WIDE = "200"


class Warm:
    """A process that was forked: of `subprocess.Popen` what tests use."""

    def __init__(self, command: Sequence[str], status: int, why: Callable[[], str]) -> None:
        self.args = list(command)
        self.returncode: int | None = None
        self._status = status
        self._status_text = b""
        self._why = why
        while b"\n" not in self._status_text:
            self._read()
        first, _, self._status_text = self._status_text.partition(b"\n")
        self.pid = int(first)

    def _read(self) -> None:
        status = os.read(self._status, 64)
        if not status:
            raise AssertionError(f"the process that forks for the tests has ended\n{self._why()}")
        self._status_text += status

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._ended()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._ended()
        assert self.returncode is not None
        return self.returncode

    def _ended(self) -> None:
        while b"\n" not in self._status_text:
            self._read()
        self.returncode = int(self._status_text)
        os.close(self._status)


class _Server:
    """The one that forks, started at the first use."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._owner = os.getpid()
        # Threads of a library would not live on in a fork.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "COLUMNS": WIDE}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm_server", str(theirs.fileno())],
            env={name: value for name, value in environment.items() if not name.startswith("MILLRACE_")},
            cwd=REPOSITORY,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        theirs.close()
        atexit.register(self.close)

    def start(self, words: Sequence[str], env: Mapping[str, str], cwd: Path, stdio: Sequence[int]) -> Warm:
        request = {"words": list(words), "env": dict(env), "cwd": str(cwd)}
        status, theirs = os.pipe()
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [*stdio, theirs])
        finally:
            os.close(theirs)
        return Warm(["millrace", *words], status, self.output)

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        if os.getpid() == self._owner:
            self._socket.close()
            self._process.wait(20)
            self._log.close()


_server: _Server | None = None


def fits(env: Mapping[str, str]) -> bool:
    """Return True if a fork serves this environment as well as a full start."""
    if sys.platform != "linux" or not {name for name in env if name.startswith("PYTHON")} <= _HARMLESS:
        return False
    same = all(env.get(name) == os.environ.get(name) for name in (*_AT_START, *_AT_IMPORT))
    return same and env.get("PYTHONPATH") in (None, str(REPOSITORY)) and env.get("COLUMNS") in (None, WIDE)


def start(words: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: int, stderr: int) -> Warm:
    """`python -m app WORDS` in this environment and folder; nothing to read on stdin."""
    global _server
    if _server is None:
        _server = _Server()
    with open(os.devnull, "rb") as nothing:
        return _server.start(words, env, cwd, [nothing.fileno(), stdout, stderr])
