"""The pool of sandboxes: as many as may run at once, all warm, each lent to one call at a time.

The host never forks. It asks the fork server (`fork_server`), a small program with one thread that was started as a new
process, with an environment without secrets. A worn, failed or dead sandbox is replaced in the background.
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
# A sandbox has one core's worth of work: libraries that start a thread per core would disturb other sandboxes.
_ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",  # an arena per thread counts 64 MiB each against the memory limit
}


def sandbox_environment(host: Mapping[str, str]) -> dict[str, str]:
    """Return the host's environment with the sandbox's role and without secrets (by name, or a password in a URL)."""
    variables = {
        name: value for name, value in host.items() if not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
    }
    return {**_ONE_CORE, **variables, "MILLRACE_ROLE": "lane"}


class Sandbox:
    """One child. Its channel carries calls and answers; over its leash the server sends its pid and exit code."""

    def __init__(self, control: socket.socket) -> None:
        self.pid: int | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.channel, tsuccessors = socket.socketpair()
        self.leash, leash_end = socket.socketpair()
        try:
            socket.send_fds(control, [b"f"], [tsuccessors.fileno(), leash_end.fileno()])
        except OSError:
            self.close()
            raise
        finally:
            tsuccessors.close()
            leash_end.close()
        self.channel.setblocking(False)

    def is_ready(self, timeout_s: float = START_TIMEOUT_S) -> bool:
        """Return True if it lives; wait for one that was just ordered."""
        if self.pid is None:
            self.pid = self._receive_number(timeout_s)
        # The server may not have reported its death yet; an idle sandbox sends nothing on the channel.
        return self.pid is not None and not _readable(self.leash, 0) and not _readable(self.channel, 0)

    def wait_exit_code(self, timeout_s: float = DEATH_TIMEOUT_S) -> int | None:
        """Wait for its end and return the exit code (negative: the signal); None if the server did not send it."""
        return self._receive_number(timeout_s)

    def _receive_number(self, timeout_s: float) -> int | None:
        if not _readable(self.leash, timeout_s):
            return None
        with suppress(OSError):
            message = self.leash.recv(NUMBER.size)
            if len(message) == NUMBER.size:
                return int(NUMBER.unpack(message)[0])
        return None

    def signal(self, number: signal.Signals) -> None:
        """Signal the sandbox alone. Until close() its pid is not reused: the server keeps the zombie."""
        with self._lock, suppress(ProcessLookupError):
            if not self._closed and self.pid is not None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and the processes it started, from any thread."""
        with self._lock, suppress(ProcessLookupError, PermissionError):
            if self._closed:
                return
            if self.pid is None:
                self.leash.shutdown(socket.SHUT_RDWR)
            else:
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the channel and the leash: the server kills its group and reaps it."""
        with self._lock:
            self._closed = True
            self.leash.close()
            self.channel.close()


def _readable(sock: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class SandboxPool:
    """`size` sandboxes; calls that find none free wait in a queue, first in, first out."""

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
        """Order all sandboxes now, not at the first call. Raises SandboxCrashed if no server can be started."""
        with self._lock:
            self._fill()

    def take(self, reservation: Future[Sandbox]) -> Sandbox:
        """Wait for a sandbox. A reservation that was given up raises concurrent.futures.CancelledError."""
        with self._lock:
            self._fill()
            if self._idle and not reservation.cancelled():
                reservation.set_result(self._idle.pop())
                self._lent.add(reservation.result())
            elif not reservation.cancelled():
                self._waiting.append(reservation)
        return reservation.result()

    def give_up(self, reservation: Future[Sandbox]) -> None:
        """Leave the queue, or never join it. Without effect on a reservation that has its sandbox."""
        with self._lock:
            with suppress(ValueError):
                self._waiting.remove(reservation)
            reservation.cancel()

    def give_back(self, sandbox: Sandbox, *, reusable: bool) -> None:
        """Pass the sandbox, or a new one if it is not reusable, to the next call in the queue."""
        with self._lock:
            self._lent.discard(sandbox)
            if reusable and not self.stopped:
                self._idle.append(sandbox)
            else:
                sandbox.close()
            try:
                self._fill()
            except AppError as error:
                while self._waiting and not self._idle:
                    self._waiting.popleft().set_exception(error)
            while self._waiting and self._idle:
                successor = self._idle.pop()
                self._lent.add(successor)
                self._waiting.popleft().set_result(successor)

    def stop(self) -> None:
        """End the server and all sandboxes; running and queued calls raise Interrupted."""
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
        """Close the parent's descriptors in a forked child of the host, and touch nothing else."""
        for sandbox in (*self._idle, *self._lent):
            sandbox.leash.close()
            sandbox.channel.close()
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.returncode = 0  # not a child of this process: no wait, no warning

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
            self._control, tsuccessors = socket.socketpair()
            boot = {"path": sys.path, "control": tsuccessors.fileno(), "host": os.getpid(), "preload": self.preload}
            with tsuccessors:
                self._server = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, json.dumps(boot)],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    env=sandbox_environment(os.environ),  # passed on, not read as a setting
                    pass_fds=[tsuccessors.fileno()],
                    start_new_session=True,
                )
        return self._control

    def _drop_server(self) -> None:
        """Forget a server that has died with all its sandboxes; calls on lent ones see their channels close."""
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
