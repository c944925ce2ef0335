"""The child process of a sandbox: calls come in as lines of JSON, progress and results go out as lines of JSON.

One call at a time, on the main thread. In: `{"function", "arguments", "blob", "memory_mb", "cpu_s", "time_limit_s",
"log_context", "programs"}`, for an open sandbox once `environment`, for a closed one `uid` and `file_bytes`. The log
context is that of the host; the log lines of the sandbox carry it, too.
Out, any number of `{"progress": {...}}` and `{"log": {...}}`, then one `{"result": ..., "worn": bool}` or one
`{"error": {...}, "worn": bool}`. They go over a separate socket: output of the function or of foreign code to fd 1 or 2
of an open sandbox goes to the host's stderr, that of a closed one to a pipe that the host reads.

SIGUSR1 is the soft time limit: it raises TimeLimitExceeded inside the function. The memory limit is RLIMIT_AS above
the present size (Linux only), the CPU limit RLIMIT_CPU above the CPU time used so far.
"""

from __future__ import annotations

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
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from errno import EFBIG, ENOMEM
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from app.core import errors
from app.core.durations import seconds_or_none
from app.core.errors import AppError, InvalidInput, SandboxOutOfMemory
from app.core.process import adopt_orphans, die_with_parent, name_process
from app.jobs.sandbox import box, programs
from app.jobs.sandbox.call_state import ProcessState
from app.jobs.sandbox.child_progress import SandboxProgress, SoftLimit

MAX_REQUEST_BYTES = 1024 * 1024
MAX_RESULT_BYTES = 16 * 1024 * 1024
MAX_CALLS = 50
SOFT_LIMIT_SIGNAL = signal.SIGUSR1
# How a closed sandbox logs; all else would be read from files with secrets.
LOG_SETTINGS = ("MILLRACE_LOG_LEVEL", "MILLRACE_LOG_FORMAT", "MILLRACE_PROGRAM")

# A request, and the environment of an open sandbox with its first one.
_MAX_LINE_BYTES = 4 * MAX_REQUEST_BYTES
_MAX_TRACEBACK_CHARS = 64 * 1024
_MAX_MESSAGE_CHARS = 8 * 1024


class UnfitResult(Exception):
    """The result cannot leave the sandbox; trying again would not help."""


def load_named(name: str) -> Any:
    """Return the object that `module:qualname` names; for an actor, its function."""
    module, _, qualname = name.partition(":")
    target = reduce(getattr, qualname.split("."), importlib.import_module(module))
    return getattr(target, "fn", target)


def set_up_logging(*, closed: bool = False) -> ModuleType | None:
    """Log like the host if some code has loaded the logging module; it is too large to load for nothing."""
    logs = sys.modules.get("app.core.logging")
    if logs is not None:
        logs.setup("lane", read_files=not closed)
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
    """Limit further memory and CPU time of an open sandbox; what it already uses does not count.

    Both soft limits end with the call. The hard limit of memory stays, with room for what a reused sandbox may keep.
    """
    space, cpu = resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU)
    try:
        if memory_mb is not None and sys.platform == "linux":
            soft, hard = box.address_space_bytes() + memory_mb * box.MIB, space[1]
            if hard == resource.RLIM_INFINITY:
                hard = soft + box.MAX_GROWTH_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (min(soft, hard), hard))
        if cpu_s is not None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + cpu_s), cpu[1]))
        yield
    finally:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        resource.setrlimit(resource.RLIMIT_CPU, cpu)


class _CallServer(ABC):
    """Answers the calls of one sandbox, one after the other."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._limit = SoftLimit()
        self._logs: ModuleType | None = None
        self._bound: list[str] = []

    def answer(self, request: dict[str, Any]) -> None:
        """Run one call and send its result or error."""
        progress = SandboxProgress(self._send, self._limit)
        try:
            encoded = self._result(self._perform(request, progress))
        # Foreign code must not end the sandbox: every exception, even SystemExit, is an answer.
        except BaseException as error:  # noqa: BLE001
            self._limit.running = False
            worn = self._is_worn(request) or _may_have_left_more(error)
            encoded = json.dumps({"error": describe(error), "worn": worn}, default=str).encode()
        progress.close()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # the function closed or replaced it
                stream.flush()
        self._channel.sendall(encoded + b"\n")

    def _perform(self, request: dict[str, Any], progress: SandboxProgress) -> Any:
        self._limit.limit_s = request["time_limit_s"]
        self._limit.late = False
        signal.signal(SOFT_LIMIT_SIGNAL, self._limit.on_signal)
        self._bind(request["log_context"], progress)
        arguments = dict(request["arguments"])
        function = self._load(request["function"], arguments)
        if request["blob"] is not None:
            arguments["blob"] = Path(request["blob"])
        if "progress" in inspect.signature(function).parameters:
            arguments["progress"] = progress
        try:
            with self._confined(request):
                self._limit.running = True
                try:
                    return function(**arguments)
                finally:
                    self._limit.running = False
        except (MemoryError, OSError) as error:
            if isinstance(error, OSError) and error.errno != ENOMEM:
                raise
            memory_mb = request["memory_mb"]
            limit = "the machine has" if memory_mb is None else f"its limit of {memory_mb} MiB"
            raise SandboxOutOfMemory(f"needed more memory than {limit}") from error

    def _load(self, name: str, arguments: dict[str, Any]) -> Any:
        """Import all that the call names, before its limits: what modules take and change stays for later calls."""
        self._limit.running = True
        try:
            function = load_named(name)
            for needed in ("definition", "function") if function is call_job else ():
                load_named(arguments[needed])
            return function
        finally:
            self._limit.running = False

    @abstractmethod
    def _confined(self, request: dict[str, Any]) -> AbstractContextManager[None]:
        """Return a context in which the limits of this call hold."""

    def _bind(self, context: dict[str, Any], progress: SandboxProgress) -> None:
        if self._logs is not None:
            self._logs.send_lines(progress.send_line)
            self._logs.unbind(*self._bound)
            self._logs.bind(**context)
            self._bound = list(context)

    def _result(self, result: Any) -> bytes:
        try:
            encoded = json.dumps(result, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise UnfitResult(f"the result is not JSON: {error}") from error
        if len(encoded) > MAX_RESULT_BYTES:
            raise UnfitResult(
                f"the result has {len(encoded):,} bytes, at most {MAX_RESULT_BYTES:,} are allowed: write it to a file"
            )
        worn = json.dumps(self._is_worn(None))
        return b'{"worn": %s, "result": %s}' % (worn.encode(), encoded)

    def _is_worn(self, request: dict[str, Any] | None) -> bool:
        return True

    def _send(self, frame: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(frame, default=str).encode() + b"\n")


class _OpenServer(_CallServer):
    """Serves many calls. It is worn, and is replaced, if a call left something that a later one would inherit."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel)
        self._calls = 0
        self._resident = box.memory_bytes()[1]
        self._memory_mb: int | None = None
        self._state: ProcessState | None = None

    def answer(self, request: dict[str, Any]) -> None:
        if "environment" in request:
            _take_environment(request["environment"])
            self._logs = set_up_logging()
        self._calls += 1
        self._memory_mb = request["memory_mb"]
        super().answer(request)

    def _perform(self, request: dict[str, Any], progress: SandboxProgress) -> Any:
        self._logs = self._logs or set_up_logging()
        self._state = None
        return super()._perform(request, progress)

    def _confined(self, request: dict[str, Any]) -> AbstractContextManager[None]:
        self._state = ProcessState.now(SOFT_LIMIT_SIGNAL)
        return limit_resources(request["memory_mb"], request["cpu_s"])

    def _is_worn(self, request: dict[str, Any] | None) -> bool:
        """Return True after many calls or grown memory, and if threads, processes or changed state are left over."""
        if self._calls >= MAX_CALLS or box.memory_bytes()[1] - self._resident > box.MAX_GROWTH_BYTES:
            return True
        space, hard = box.address_space_bytes(), resource.getrlimit(resource.RLIMIT_AS)[1]
        if self._memory_mb and hard != resource.RLIM_INFINITY and hard - space < self._memory_mb * box.MIB:
            return True
        left_over = any(
            not isinstance(thread, threading.Timer) and thread is not threading.main_thread()
            for thread in threading.enumerate()
        )
        has_changed = self._state is not None and ProcessState.now(SOFT_LIMIT_SIGNAL) != self._state
        return left_over or has_changed or _has_children()


class _ClosedServer(_CallServer):
    """Serves one call, after which the process ends."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel)
        self._logs = sys.modules.get("app.core.logging")

    def _perform(self, request: dict[str, Any], progress: SandboxProgress) -> Any:
        try:
            return super()._perform(request, progress)
        except RecursionError as error:
            raise InvalidInput("the document is nested too deeply", code="broken_document") from error
        except OSError as error:
            if error.errno != EFBIG:
                raise
            limit = request["file_bytes"] // box.MIB
            raise InvalidInput(f"a file of more than {limit} MiB would be written", code="document_size") from error

    @contextmanager
    def _confined(self, request: dict[str, Any]) -> Iterator[None]:
        memory_mb, time_limit_s = request["memory_mb"], request["time_limit_s"]
        limits: dict[str, Any] = {
            "module": request["function"].partition(":")[0],
            "folder": Path(request["blob"]).parent if request["blob"] is not None else None,
            "uid": request["uid"],
            "memory_bytes": memory_mb * box.MIB if memory_mb is not None else None,
            "cpu_s": request["cpu_s"] or (time_limit_s and time_limit_s + 60),
            "file_bytes": request["file_bytes"],
        }
        if request["programs"]:

            def close_helper() -> None:
                box.close(**limits, programs=True)

            programs.fork_helper(request["programs"], close_helper, [self._channel.fileno()])
        box.close(**limits)
        yield


def _take_environment(variables: Mapping[str, str]) -> None:
    """Make these the environment; settings that were read before are read again."""
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    settings = sys.modules.get("app.core.settings")
    if settings is not None:
        settings.get_settings.cache_clear()


def _may_have_left_more(error: BaseException) -> bool:
    """Return True for errors that came from outside the code: it was interrupted anywhere, perhaps in a library."""
    interrupted = isinstance(error, (MemoryError, SandboxOutOfMemory, errors.TimeLimitExceeded, RecursionError))
    return interrupted or not isinstance(error, Exception)


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
    """Be an open sandbox: serve calls until the host closes its end."""
    _settle()
    box.open_up()
    server = _OpenServer(channel)
    with channel.makefile("rb") as requests:
        while (line := requests.readline(_MAX_LINE_BYTES)).endswith(b"\n"):
            server.answer(json.loads(line))


def serve_one_call(channel: socket.socket, output: int) -> None:
    """Be a closed sandbox: serve one call. What it prints goes to `output`."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    _settle()
    with channel.makefile("rb") as requests:
        line = requests.readline(_MAX_LINE_BYTES)
    if line.endswith(b"\n"):
        _ClosedServer(channel).answer(json.loads(line))
