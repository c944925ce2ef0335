"""The child process of a sandbox: calls come in as lines of JSON, progress and results go out as lines of JSON.

One call at a time, on the main thread. In: `{"function", "arguments", "blob", "memory_mb", "cpu_s", "time_limit_s",
"log_context"}`. The log context is that of the host; the log lines of the sandbox carry it, too.
Out, any number of `{"progress": {...}}` and `{"log": {...}}`, then one `{"result": ..., "worn": bool}` or one
`{"error": {...}}`. They go over a separate socket: output of the function or of foreign code to fd 1 or 2 goes to the
host's stderr.

SIGUSR1 is the soft time limit: it raises TimeLimitExceeded inside the function. The memory limit is RLIMIT_AS above
the present size (Linux only), the CPU limit RLIMIT_CPU above the CPU time used so far; both end with the call.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import inspect
import json
import math
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOMEM
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from app.core import errors
from app.core.durations import seconds_or_none
from app.core.errors import AppError, SandboxOutOfMemory
from app.jobs.sandbox.child_progress import SandboxProgress, SoftLimit

MAX_REQUEST_BYTES = 1024 * 1024
MAX_RESULT_BYTES = 16 * 1024 * 1024
MAX_CALLS = 50
MAX_GROWTH_BYTES = 128 * 1024 * 1024
SOFT_LIMIT_SIGNAL = signal.SIGUSR1

_MAX_TRACEBACK_CHARS = 64 * 1024
_MAX_MESSAGE_CHARS = 8 * 1024
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36


class UnfitResult(Exception):
    """The result cannot leave the sandbox; trying again would not help."""


def prctl(option: int, value: int | bytes) -> bool:
    """Call prctl(2) for this process; return False if it failed, or outside Linux."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


def die_with_parent(signum: signal.Signals) -> bool:
    """Have the kernel send `signum` to this process when its parent dies; check getppid() afterwards."""
    return prctl(_PR_SET_PDEATHSIG, signum)


def adopt_orphans() -> bool:
    """Become the parent of all descendants whose parent dies, so that none can escape."""
    return prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    prctl(_PR_SET_NAME, name.encode()[:15])


def load_named(name: str) -> Any:
    """Return the object that `module:qualname` names; for an actor, its function."""
    module, _, qualname = name.partition(":")
    target = reduce(getattr, qualname.split("."), importlib.import_module(module))
    return getattr(target, "fn", target)


def set_up_logging() -> ModuleType | None:
    """Log like the host if some code has loaded the logging module; it is too large to load for nothing."""
    logs = sys.modules.get("app.core.logging")
    if logs is not None:
        logs.setup("lane")
    return logs


def call_job(
    definition: str, payload: dict[str, Any], function: str, progress: SandboxProgress, version: int | None = None
) -> Any:
    """Run the plain function of a job: payload → job of its definition → `function(job, progress)`."""
    kind = load_named(definition)
    job = kind.load(payload, kind.payload_version if version is None else version)
    return load_named(function)(job, progress)


@contextmanager
def limit_resources(memory_mb: int | None, cpu_s: float | None) -> Iterator[None]:
    """Limit further memory and CPU time; what the sandbox already uses does not count."""
    space, cpu = resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU)
    try:
        if memory_mb is not None and sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (_memory_bytes()[0] + memory_mb * 1024 * 1024, space[1]))
        if cpu_s is not None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + cpu_s), cpu[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, space)
        resource.setrlimit(resource.RLIMIT_CPU, cpu)


def _memory_bytes() -> tuple[int, int]:
    """Return address space and resident memory of this process in bytes; zeros without /proc."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            pages = statm.read().split()
    except OSError:
        return 0, 0
    return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()


class _CallServer:
    """Answers the calls of one sandbox, one after the other."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._limit = SoftLimit()
        self._calls = 0
        self._resident = _memory_bytes()[1]
        self._logs: ModuleType | None = None
        self._bound: list[str] = []

    def answer(self, request: dict[str, Any]) -> None:
        """Run one call and send its result or error."""
        self._calls += 1
        progress = SandboxProgress(self._send, self._limit)
        try:
            encoded = self._result(self._perform(request, progress))
        # Foreign code must not end the sandbox: every exception, even SystemExit, is an answer.
        except BaseException as error:  # noqa: BLE001
            self._limit.running = False
            encoded = json.dumps({"error": describe(error)}, default=str).encode()
        progress.close()
        sys.stdout.flush()
        self._channel.sendall(encoded + b"\n")

    def _perform(self, request: dict[str, Any], progress: SandboxProgress) -> Any:
        self._limit.limit_s = request["time_limit_s"]
        self._limit.late = False
        signal.signal(SOFT_LIMIT_SIGNAL, self._limit.on_signal)
        function = load_named(request["function"])
        self._bind(request["log_context"], progress)
        arguments = dict(request["arguments"])
        if request["blob"] is not None:
            arguments["blob"] = Path(request["blob"])
        if "progress" in inspect.signature(function).parameters:
            arguments["progress"] = progress
        memory_mb = request["memory_mb"]
        try:
            with limit_resources(memory_mb, request["cpu_s"]):
                self._limit.running = True
                try:
                    return function(**arguments)
                finally:
                    self._limit.running = False
        except (MemoryError, OSError) as error:
            if isinstance(error, OSError) and error.errno != ENOMEM:
                raise
            limit = "the machine has" if memory_mb is None else f"its limit of {memory_mb} MiB"
            raise SandboxOutOfMemory(f"needed more memory than {limit}") from error

    def _bind(self, context: dict[str, Any], progress: SandboxProgress) -> None:
        self._logs = self._logs or set_up_logging()
        if self._logs is not None:
            self._logs.send_lines(progress.send_line)
            self._logs.unbind(*self._bound)
            self._logs.bind(**context)
            self._bound = list(context)

    def _result(self, result: Any) -> bytes:
        try:
            encoded = json.dumps({"result": result, "worn": self._is_worn()}, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise UnfitResult(f"the result is not JSON: {error}") from error
        if len(encoded) > MAX_RESULT_BYTES:
            raise UnfitResult(
                f"the result has {len(encoded):,} bytes, at most {MAX_RESULT_BYTES:,} are allowed: write it to a file"
            )
        return encoded

    def _is_worn(self) -> bool:
        """Return True after many calls or grown memory, and if threads or processes are left over."""
        if self._calls >= MAX_CALLS or _memory_bytes()[1] - self._resident > MAX_GROWTH_BYTES:
            return True
        return _has_children() or any(
            not isinstance(thread, threading.Timer) and thread is not threading.main_thread()
            for thread in threading.enumerate()
        )

    def _send(self, frame: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(frame, default=str).encode() + b"\n")


def _has_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def describe(error: BaseException) -> dict[str, Any]:
    """Return the error as JSON; `base` names its class in our error tree, None for a foreign error."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the __str__ of a foreign class may fail
        message = "<the error has no printable message>"
    return {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "base": kinds[0] if isinstance(error, AppError) else None,
        "message": message[:_MAX_MESSAGE_CHARS],
        "traceback": _traceback_of(error)[-_MAX_TRACEBACK_CHARS:],
        "code": getattr(error, "code", None) if isinstance(error, AppError) else None,
        "errors": error.errors if isinstance(error, AppError) else [],
        "retry_after_s": seconds_or_none(getattr(error, "retry_after_s", None)),
        "permanent": isinstance(error, UnfitResult),
    }


def _traceback_of(error: BaseException) -> str:
    """Return the traceback; of an error that cannot be formatted, its stack alone."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  for example a SyntaxError whose text is bytes
        return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__


def _settle() -> None:
    """Make this forked process a sandbox: own group, dies with its server, first victim of the OOM killer."""
    with suppress(PermissionError):  # the server has already made the group
        os.setpgid(0, 0)
    server = os.getppid()
    if die_with_parent(signal.SIGKILL) and os.getppid() != server:
        os._exit(1)
    adopt_orphans()
    name_process("mr-sandbox")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")
    faulthandler.enable(file=2)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(server,), daemon=True).start()


def _watch(server: int) -> None:
    """Kill the group when the parent has died, on systems where the kernel sends no signal."""
    never = threading.Event()
    while os.getppid() == server:
        never.wait(1.0)
    os.killpg(0, signal.SIGKILL)


def serve_calls(channel: socket.socket) -> None:
    """Serve calls until the host closes its end."""
    _settle()
    server = _CallServer(channel)
    with channel.makefile("rb") as requests:
        while (line := requests.readline(MAX_REQUEST_BYTES + 1)).endswith(b"\n"):
            server.answer(json.loads(line))
