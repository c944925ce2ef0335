"""The sandboxes of this process: as many as may run at once, all warm, each lent to one call at a time.

The host itself never forks: it asks the fork server (`sandbox_server`), a small program of one thread that was started
fresh, with an environment without secrets. A sandbox that is worn, failed or dead is replaced in the background.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from app.core.errors import AppError, Interrupted, SandboxCrashed
from app.jobs.sandbox.fork_server import NUMBER

START_TIMEOUT_S = 30.0
DEATH_TIMEOUT_S = 2.0

_SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|(DATABASE|REDIS)_URL|DSN(_|$)|(^|_)TOKEN(_FILE)?$", re.IGNORECASE
)
_SECRET_VALUE = re.compile(r"://[^/\s@]*:[^/\s@]+@")
_BOOT = (
    "import json, sys; boot = json.loads(sys.argv[1]); sys.path[:] = boot['path']; "
    "from app.jobs.sandbox.fork_server import main; main(boot)"
)
# A sandbox is one core's worth of work: libraries that would start a thread a core for it only disturb its neighbours.
_ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",  # an arena a thread would count 64 MiB each against the memory limit
}


def sandbox_environment(host: Mapping[str, str]) -> dict[str, str]:
    """The host's environment without secrets, by name or by a password in a URL, and with the sandbox's role."""
    kept = {
        name: value for name, value in host.items() if not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
    }
    return {**_ONE_CORE, **kept, "MILLRACE_ROLE": "lane"}


class Sandbox:
    """One child: its channel carries calls and answers, over its leash the server tells its pid and its end."""

    def __init__(self, control: socket.socket) -> None:
        self.pid: int | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.channel, theirs = socket.socketpair()
        self.leash, leash_end = socket.socketpair()
        try:
            socket.send_fds(control, [b"f"], [theirs.fileno(), leash_end.fileno()])
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()
            leash_end.close()
        self.channel.setblocking(False)

    def is_ready(self, timeout_s: float = START_TIMEOUT_S) -> bool:
        """Whether it lives; waits until it does where it was only just ordered."""
        if self.pid is None:
            self.pid = self._hear(timeout_s)
        # The server may not have told of its death yet; an idle sandbox has nothing to say on the channel.
        return self.pid is not None and not _readable(self.leash, 0) and not _readable(self.channel, 0)

    def exit_code(self, timeout_s: float = DEATH_TIMEOUT_S) -> int | None:
        """How it ended (negative: the signal) once it has; None where the server cannot tell."""
        return self._hear(timeout_s)

    def _hear(self, timeout_s: float) -> int | None:
        if not _readable(self.leash, timeout_s):
            return None
        with suppress(OSError):
            message = self.leash.recv(NUMBER.size)
            if len(message) == NUMBER.size:
                return int(NUMBER.unpack(message)[0])
        return None

    def signal(self, number: signal.Signals) -> None:
        """To the sandbox alone. Until close() its pid is its own, even after its death: the server keeps the zombie."""
        with self._lock, suppress(ProcessLookupError):
            if not self._closed and self.pid is not None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and what it started, from any thread."""
        with self._lock, suppress(ProcessLookupError, PermissionError):
            if self._closed:
                return
            if self.pid is None:
                self.leash.shutdown(socket.SHUT_RDWR)
            else:
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go: the server kills what is left of it and reaps it."""
        with self._lock:
            self._closed = True
            self.leash.close()
            self.channel.close()


def _readable(sock: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class Pool:
    """`size` sandboxes; who finds none free waits in line, first come, first served."""

    def __init__(self, size: int, preload: Sequence[str]) -> None:
        self.size = size
        self.preload = list(preload)
        self.stopped = False
        self.callers = ThreadPoolExecutor(size, thread_name_prefix="sandbox-caller")
        self._lock = threading.Lock()
        self._idle: list[Sandbox] = []
        self._lent: set[Sandbox] = set()
        self._waiting: deque[Future[Sandbox]] = deque()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def server_pid(self) -> int | None:
        server = self._server
        return server.pid if server is not None else None

    def warm(self) -> None:
        """Order all sandboxes now, not at the first call. Raises SandboxCrashed where no server can be started."""
        with self._lock:
            self._fill()

    def take(self, ticket: Future[Sandbox]) -> Sandbox:
        """A sandbox, waited for. A ticket that was given up raises concurrent.futures.CancelledError."""
        with self._lock:
            self._fill()
            if self._idle and not ticket.cancelled():
                ticket.set_result(self._idle.pop())
                self._lent.add(ticket.result())
            elif not ticket.cancelled():
                self._waiting.append(ticket)
        return ticket.result()

    def give_up(self, ticket: Future[Sandbox]) -> None:
        """Leave the line, or never join it. Without effect on a ticket that has its sandbox."""
        with self._lock:
            with suppress(ValueError):
                self._waiting.remove(ticket)
            ticket.cancel()

    def give_back(self, sandbox: Sandbox, *, fit: bool) -> None:
        """The next in line gets it, or its successor where it is not fit."""
        with self._lock:
            self._lent.discard(sandbox)
            if fit and not self.stopped:
                self._idle.append(sandbox)
            else:
                sandbox.close()
            try:
                self._fill()
            except AppError as error:
                while self._waiting and not self._idle:
                    self._waiting.popleft().set_exception(error)
            while self._waiting and self._idle:
                heir = self._idle.pop()
                self._lent.add(heir)
                self._waiting.popleft().set_result(heir)

    def stop(self) -> None:
        """End the server and all sandboxes; calls under way and in line raise Interrupted."""
        with self._lock:
            self.stopped = True
            while self._waiting:
                self._waiting.popleft().set_exception(Interrupted("the sandboxes are being closed"))
            for sandbox in self._lent:
                sandbox.kill()
            for sandbox in self._idle:
                sandbox.close()
            self._idle.clear()
            if self._control is not None:
                self._control.close()
        if self._server is not None:
            _end(self._server)
        self.callers.shutdown(wait=False, cancel_futures=True)

    def abandon(self) -> None:
        """In a forked child of the host: drop the parent's descriptors, touch nothing else of it."""
        for sandbox in (*self._idle, *self._lent):
            sandbox.leash.close()
            sandbox.channel.close()
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.returncode = 0  # not our child: it must be neither waited for nor warned about

    def _fill(self) -> None:
        if self.stopped:
            raise Interrupted("the sandboxes are being closed")
        while len(self._idle) + len(self._lent) < self.size:
            try:
                self._idle.insert(0, Sandbox(self._running_server()))
            except (BrokenPipeError, ConnectionResetError):
                self._drop_server()
            except OSError as error:
                raise SandboxCrashed(f"no sandbox could be started: {error}") from error

    def _running_server(self) -> socket.socket:
        if self._server is not None and self._server.poll() is not None:
            self._drop_server()
        if self._control is None:
            self._control, theirs = socket.socketpair()
            boot = {"path": sys.path, "control": theirs.fileno(), "host": os.getpid(), "preload": self.preload}
            with theirs:
                self._server = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, json.dumps(boot)],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    env=sandbox_environment(os.environ),  # what is handed on, not a setting that is read
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        return self._control

    def _drop_server(self) -> None:
        """After its death, which was also that of all its sandboxes: idle ones go, lent ones find out by themselves."""
        for sandbox in self._idle:
            sandbox.close()
        self._idle.clear()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._server is not None:
            _end(self._server)
            self._server = None


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(timeout=DEATH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
