"""The pool of sandboxes: each is lent to one call at a time, and only so many calls run at once.

The host never forks. It asks the fork server (`fork_server`), a small program with one thread that was started as a new
process, with an environment without secrets. A worn or dead sandbox is replaced in the background.
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
from app.core.logging import get_logger
from app.jobs.sandbox.box import Access
from app.jobs.sandbox.child import LOG_SETTINGS
from app.jobs.sandbox.fork_server import NUMBER, ORDER_BYTES

MAX_MODULE_CHARS = 400
# A crash of the interpreter prints a stack of this size.
MAX_OUTPUT_BYTES = 8 * 1024
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


# All that Python and the libraries of a parser need; an open sandbox gets the rest with its first call.
_NEEDED = (
    "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "TESSDATA_PREFIX", "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUTF8", "PYTHONUNBUFFERED", *LOG_SETTINGS,
)  # fmt: skip


def sandbox_environment(host: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an open sandbox: the host's without secrets (by name, or a password in a URL)."""
    variables = {
        name: value for name, value in host.items() if not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
    }
    return {**_ONE_CORE, **variables, "MILLRACE_ROLE": "lane"}


def closed_environment(host: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the fork server and of closed sandboxes: what Python needs, and how to log."""
    variables = {name: value for name, value in host.items() if name in _NEEDED or name.startswith("LC_")}
    return {**_ONE_CORE, **variables, "MILLRACE_ROLE": "lane"}


log = get_logger(__name__)


class Sandbox:
    """One child. Its channel carries calls and answers; over its leash the server sends its pid and exit code.

    A closed one imports `module` and serves one call; `output` is the reading end of a pipe with what it prints.
    """

    def __init__(self, control: socket.socket, access: Access, module: str = "") -> None:
        self.pid: int | None = None
        self.access = access
        self.output: int | None = None
        self.memory_mb: int | None = None
        self.is_new = True
        self._printed = b""
        self._lock = threading.Lock()
        self._closed = False
        self.channel, channel_end = socket.socketpair()
        self.leash, leash_end = socket.socketpair()
        sent = [channel_end.fileno(), leash_end.fileno()]
        if access == "closed":
            self.output, output_end = os.pipe()
            sent.append(output_end)
        try:
            order = json.dumps({"access": access, "module": module[:MAX_MODULE_CHARS]}).encode().ljust(ORDER_BYTES)
            socket.send_fds(control, [order], sent)
        except OSError:
            self.close()
            raise
        finally:
            channel_end.close()
            leash_end.close()
            for descriptor in sent[2:]:
                os.close(descriptor)
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

    def fits(self, memory_mb: int | None) -> bool:
        """Return True if the hard limit of its first call leaves room for this much memory."""
        return self.memory_mb is None or (memory_mb is not None and memory_mb <= self.memory_mb)

    def read_output(self) -> bool:
        """Read what it has printed, and keep the end of it; return False when it prints no more."""
        assert self.output is not None
        chunk = os.read(self.output, MAX_OUTPUT_BYTES)
        self._printed = (self._printed + chunk)[-MAX_OUTPUT_BYTES:]
        return bool(chunk)

    def log_output(self, function: str) -> None:
        """Log the end of what a closed sandbox has printed."""
        while self.output is not None and _readable(self.output, 0) and self.read_output():
            pass
        if self._printed:
            log.info("sandbox_output", function=function, text=self._printed.decode("utf-8", "replace"))
            self._printed = b""

    def close(self) -> None:
        """Close the channel and the leash: the server kills its group and reaps it."""
        with self._lock:
            self._closed = True
            self.leash.close()
            self.channel.close()
            if self.output is not None:
                os.close(self.output)
                self.output = None


def _readable(sock: socket.socket | int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class SandboxPool:
    """Runs `size` calls at once; more calls wait in a queue, first in, first out.

    Open sandboxes are started ahead and used again. A closed one is forked for its call.
    """

    def __init__(self, size: int, preload: Sequence[str]) -> None:
        self.size = size
        self.preload = list(preload)
        self.stopped = False
        self.callers = ThreadPoolExecutor(size, thread_name_prefix="sandbox-caller")
        self._lock = threading.Lock()
        self._idle: list[Sandbox] = []
        self._lent: set[Sandbox] = set()
        self._waiting: deque[tuple[Future[Sandbox], Access, str]] = deque()
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

    def take(self, reservation: Future[Sandbox], access: Access = "open", module: str = "") -> Sandbox:
        """Wait for a sandbox. A reservation that was given up raises concurrent.futures.CancelledError."""
        with self._lock:
            self._fill()
            if not reservation.cancelled():
                self._waiting.append((reservation, access, module))
                try:
                    self._serve_waiting()
                except AppError:
                    self._waiting.pop()
                    raise
        return reservation.result()

    def give_up(self, reservation: Future[Sandbox]) -> None:
        """Leave the queue, or never join it. Without effect on a reservation that has its sandbox."""
        with self._lock:
            self._waiting = deque(item for item in self._waiting if item[0] is not reservation)
            reservation.cancel()

    def give_back(self, sandbox: Sandbox, *, reusable: bool) -> None:
        """Pass its place, and the sandbox if it is reusable, to the next call in the queue."""
        with self._lock:
            self._lent.discard(sandbox)
            if reusable and not self.stopped and sandbox.access == "open":
                self._idle.append(sandbox)
            else:
                sandbox.close()
            try:
                self._fill()
                self._serve_waiting()
            except AppError as error:
                while self._waiting:
                    self._waiting.popleft()[0].set_exception(error)

    def _serve_waiting(self) -> None:
        while self._waiting and len(self._lent) < self.size:
            reservation, access, module = self._waiting[0]
            if access == "closed":
                sandbox = self._start(access, module)
            else:
                sandbox = self._idle.pop() if self._idle else self._start(access)
            self._waiting.popleft()
            self._lent.add(sandbox)
            reservation.set_result(sandbox)

    def stop(self) -> None:
        """End the server and all sandboxes; running and queued calls raise Interrupted."""
        with self._lock:
            self.stopped = True
            while self._waiting:
                self._waiting.popleft()[0].set_exception(Interrupted("the sandboxes are being closed"))
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
            if sandbox.output is not None:
                os.close(sandbox.output)
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.returncode = 0  # not a child of this process: no wait, no warning

    def _fill(self) -> None:
        if self.stopped:
            raise Interrupted("the sandboxes are being closed")
        while len(self._idle) + len(self._lent) < self.size:
            self._idle.insert(0, self._start("open"))

    def _start(self, access: Access, module: str = "") -> Sandbox:
        while True:
            try:
                return Sandbox(self._running_server(), access, module)
            except (BrokenPipeError, ConnectionResetError):
                self._drop_server()
            except OSError as error:
                raise SandboxCrashed(f"no sandbox could be started: {error}") from error

    def _running_server(self) -> socket.socket:
        if self._server is not None and self._server.poll() is not None:
            self._drop_server()
        if self._control is None:
            self._control, server_end = socket.socketpair()
            boot = {"path": sys.path, "control": server_end.fileno(), "host": os.getpid(), "preload": self.preload}
            with server_end:
                self._server = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, json.dumps(boot)],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    env=closed_environment(os.environ),  # passed on, not read as a setting
                    pass_fds=[server_end.fileno()],
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
