"""A child process of a test: its own process group, its output in a file, ended by id whatever happens."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from tests.support import warm
from tests.support.waiting import wait_until
from tests.support.warm import Warm

# Below the range from which the kernel takes ports for outgoing connections (32768 on Linux, 49152 on macOS): a port
# from there may be taken between the look and the use.
_PORTS = range(10_240, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """A loopback port that was free a moment ago and that this process was not given before."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port not in _given and not listens(port):
            _given.add(port)
            return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Account(NamedTuple):
    """The user and group that a process runs as."""

    uid: int
    gid: int


def leftovers(folder: Path) -> list[str]:
    """Command lines of processes that were started for this data folder (Linux tells)."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"MILLRACE_DATA_DIR={folder}\0".encode() in environment + b"\0" and state != "Z":
            command_lines.append((process / "cmdline").read_text().replace("\0", " "))
    return command_lines


def _dies_with_us(command: Sequence[str], account: Account | None) -> list[str]:
    """The command so wrapped that the kernel ends it when pytest is killed; plain where Linux's setpriv is absent."""
    setpriv = shutil.which("setpriv")
    if not sys.platform.startswith("linux") or setpriv is None:
        return list(command)
    identity = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"] if account else []
    return [setpriv, *identity, "--pdeathsig", "TERM", *command]


class Process:
    """One process: start, stop, kill, freeze, wake, restart. Start it from the main thread."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: Account | None = None,
        is_warm: bool = False,
    ) -> None:
        """`is_warm`: the command is `python -m app WORDS`, and its subject is not how it starts."""
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = dict(os.environ if env is None else env)
        self.cwd = cwd
        self.account = account
        self._is_warm = is_warm
        self._popen: subprocess.Popen[bytes] | Warm | None = None

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.name} was never started"
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._popen is None else self._popen.poll()

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as output:
            if self._is_warm and warm.fits(self.env):
                words, to = self.command[3:], output.fileno()
                self._popen = warm.start(words, env=self.env, cwd=self.cwd or Path.cwd(), stdout=to, stderr=to)
                return
            self._popen = subprocess.Popen(
                _dies_with_us(self.command, self.account),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        """To the process itself, not to its group."""
        if self.alive:
            os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        if self._popen is None:
            return
        try:
            os.killpg(self._popen.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS says "not permitted" of a group of zombies
            return

    def term(self) -> None:
        self.signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop the whole group where it stands, as a stalled machine would."""
        self.signal_group(signal.SIGSTOP)

    def wake(self) -> None:
        self.signal_group(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 of the process and its whole group; returns when it is gone."""
        self.signal_group(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(timeout=10)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait until it has ended; return its exit code."""
        assert self._popen is not None
        try:
            return self._popen.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still ran after {timeout_s:g} s\n{self.tail()}") from None

    def stop(self, timeout_s: float = 20.0) -> int | None:
        """Ask it to end, then make it: afterwards nothing of its group lives. The exit code."""
        if self._popen is None:
            return None
        if self.alive:
            self.wake()
            self.term()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=timeout_s)
        self.signal_group(signal.SIGKILL)
        return self._popen.wait(timeout=10)

    def restart(self) -> None:
        self.stop()
        self.start()

    def tail(self, lines: int = 60) -> str:
        """The end of what it printed."""
        if not self.log.exists():
            return f"--- {self.name}: no output"
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"--- {self.name} (exit code {self.exit_code}), last lines of {self.log}:", *text])

    def wait_for_port(self, port: int, timeout_s: float = 20.0) -> None:
        """Until something listens there; fails at once, with the output, when the process has ended instead."""

        def ready() -> bool:
            if not self.alive:
                raise AssertionError(f"{self.name} ended at its start\n{self.tail()}")
            return listens(port)

        wait_until(ready, timeout_s=timeout_s, what=f"{self.name} on port {port}\n{self.tail()}")


class Server(Protocol):
    def start(self) -> None: ...

    def stop(self) -> object: ...


S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def running(server: S) -> Iterator[S]:
    """The server, started, and stopped whatever happens."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
