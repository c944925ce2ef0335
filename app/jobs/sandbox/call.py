"""Sandboxes: computing and foreign code in child processes that can be killed, bounded in memory, CPU and wall clock.

    call = SandboxCall("app.documents.extract.file:extract_file", {"name": "a.pdf"}, blob=path, time_limit_s=60)
    pages = call.run()                      # blocks; another thread may call.stop(Cancelled("..."))

    pages = await run(extract, {"kind": "pdf"}, blob=path, time_limit_s=60)      # a step of an async job

The function is named (`module:qualname`), imported inside and called with JSON arguments, `blob` (a Path) where one is
given and `progress` where it has such a parameter; JSON comes back, or its error: one of our own tree as the same
class, a foreign one as SandboxFailed. A sandbox has no secrets, no SQL and no Redis, and dies with this process.

Time counts from the moment the sandbox has the call, not while it waits in line for one. At `time_limit_s`
TimeLimitExceeded is raised inside, at `grace_s` later the sandbox's group is killed. Death without an answer is
SandboxCrashed, CPU over `cpu_s` TimeLimitExceeded, memory over `memory_mb` SandboxOutOfMemory where the code notices
(C code that dies of a refused allocation has crashed).
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import json
import math
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, TypeAlias

from app.core.clock import monotonic
from app.core.errors import AppError, Cancelled, Interrupted, InvalidInput, SandboxCrashed, TimeLimitExceeded
from app.core.logging import bound
from app.core.settings import get_settings
from app.core.waiting import settled
from app.jobs.sandbox import job_log
from app.jobs.sandbox.child import MAX_REQUEST_BYTES, SOFT_LIMIT_SIGNAL
from app.jobs.sandbox.pool import Sandbox, Pool
from app.jobs.sandbox.protocol import Frames, SandboxFailed, garbage, rebuilt

__all__ = ["GRACE_S", "JSON", "PRELOAD", "SandboxCall", "SandboxFailed", "run", "server_pid", "start_pool", "stop_pool"]

JSON: TypeAlias = Any
GRACE_S = 2.0
PRELOAD = ("app.core.logging", "app.jobs.definition")

_CHUNK_BYTES = 256 * 1024
_ATTEMPTS_TO_START = 3
_DYING_S = 0.5

_pool: Pool | None = None
_pool_lock = threading.Lock()


class SandboxCall:
    """One run in a sandbox; made first, so that another thread can stop it."""

    def __init__(
        self,
        function: str | Callable[..., Any],
        arguments: dict[str, JSON],
        *,
        blob: Path | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        time_limit_s: float | None,
        grace_s: float = GRACE_S,
        memory_mb: int | None,
        cpu_s: float | None = None,
    ) -> None:
        """Raises InvalidInput where the arguments are over 1 MiB: give those by `blob`.

        `on_progress` gets {done, total, unit, stage, message}, those that were said, in the thread of run().
        """
        self.function = function if isinstance(function, str) else _name(function)
        self._request = _request(
            function=self.function,
            arguments=arguments,
            blob=str(blob.resolve()) if blob else None,
            time_limit_s=time_limit_s,
            memory_mb=memory_mb,
            cpu_s=cpu_s,
            log_context={name: str(value) for name, value in bound().items()} | {"role": "lane"},
        )
        self._on_progress = on_progress
        self._time_limit_s = time_limit_s
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._ticket: Future[Sandbox] = Future()
        self._pool: Pool | None = None
        self._sandbox: Sandbox | None = None
        self._reason: AppError | None = None

    @classmethod
    def of_job(
        cls, definition: str, payload: dict[str, Any], function: str | Callable[..., Any], **options: Any
    ) -> SandboxCall:
        """A plain `def function(job, progress)`: inside, the payload becomes `definition`'s object again."""
        name = function if isinstance(function, str) else _name(function)
        arguments = {"definition": definition, "payload": payload, "function": name}
        return cls("app.jobs.sandbox.child:call_job", arguments, **options)

    def stop(self, reason: AppError) -> None:
        """From any thread: kill the sandbox's group, or leave the line; run() raises `reason`. The first reason stays."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            if self._sandbox is not None:
                self._sandbox.kill()
            pool, ticket = self._pool, self._ticket
        if pool is not None:
            pool.give_up(ticket)

    def run(self) -> JSON:
        """The result. Blocks; where it raises, nothing of the call runs any more."""
        pool = _running_pool()
        with self._lock:
            if self._reason is not None:
                raise self._reason
            self._pool = pool
        sandbox = self._take(pool)
        fit = False
        try:
            result, fit = self._converse(sandbox, pool)
        finally:
            with self._lock:
                self._sandbox = None
            if not fit:
                sandbox.kill()
            pool.give_back(sandbox, fit=fit)
        return result

    def _take(self, pool: Pool) -> Sandbox:
        for _ in range(_ATTEMPTS_TO_START):
            try:
                sandbox = pool.take(self._ticket)
            except CancelledError:
                raise self._reason or Interrupted("the call was given up") from None
            with self._lock:
                stopped = self._reason
                self._sandbox = sandbox if stopped is None else None
            if stopped is not None:
                pool.give_back(sandbox, fit=True)
                raise stopped
            if sandbox.is_ready():
                return sandbox
            with self._lock:
                stopped, self._sandbox, self._ticket = self._reason, None, Future()
            pool.give_back(sandbox, fit=False)
            if stopped is not None:
                raise stopped
        raise SandboxCrashed("no sandbox could be started; the reason is in this process's stderr")

    def _converse(self, sandbox: Sandbox, pool: Pool) -> tuple[JSON, bool]:
        """The result, and whether the sandbox may be used again."""
        outgoing = memoryview(self._request)
        frames = Frames()
        limit = _Limit(self._time_limit_s, self._grace_s)
        channel, leash = sandbox.channel.fileno(), sandbox.leash.fileno()
        poll = select.poll()
        poll.register(channel, select.POLLIN | select.POLLOUT)
        poll.register(leash, select.POLLIN)
        while True:
            ready = dict(poll.poll(limit.wait_ms()))
            events = ready.get(channel, 0)
            try:
                if events & select.POLLOUT:
                    outgoing = outgoing[sandbox.channel.send(outgoing[:_CHUNK_BYTES]) :]
                    if not outgoing:
                        poll.modify(channel, select.POLLIN)
                if events & ~select.POLLOUT:
                    chunk = sandbox.channel.recv(_CHUNK_BYTES)
                    if not chunk:
                        raise self._death(sandbox, pool)
                    for frame in frames.feed(chunk):
                        if "progress" in frame:
                            self._report(frame["progress"])
                        elif "log" in frame:
                            job_log.keep(frame["log"])
                        else:
                            return self._end(frame, clean=frames.empty)
            except (BrokenPipeError, ConnectionResetError):
                raise self._death(sandbox, pool) from None
            if not events and leash in ready:
                raise self._death(sandbox, pool)
            limit.pass_on(sandbox)

    def _report(self, report: Any) -> None:
        if not isinstance(report, dict):
            raise garbage(report)
        if self._on_progress is not None:
            self._on_progress(report)

    def _end(self, frame: dict[str, Any], *, clean: bool) -> tuple[JSON, bool]:
        if self._reason is not None:
            raise self._reason
        if "result" in frame:
            return frame["result"], clean and frame.get("worn") is False
        try:
            failure = rebuilt(frame["error"])
        except (KeyError, TypeError, ValueError):
            raise garbage(frame) from None
        raise failure

    def _death(self, sandbox: Sandbox, pool: Pool) -> AppError:
        """Why the sandbox is dead, once it is."""
        code = sandbox.exit_code(_DYING_S)
        sandbox.kill()
        mute = code is None and sandbox.exit_code() is not None
        if self._reason is not None:
            return self._reason
        if pool.stopped:
            return Interrupted("the sandboxes are being closed")
        if mute:
            return SandboxCrashed(f"sandbox closed its channel in {self.function}, without an answer")
        if code is None:
            return SandboxCrashed(f"sandbox lost in {self.function}: the fork server has ended")
        if code >= 0:
            return SandboxCrashed(f"sandbox exited with status {code} in {self.function}, without an answer")
        if code == -signal.SIGXCPU:
            return TimeLimitExceeded(f"{self.function} used more than its CPU time", code="cpu_limit")
        hint = " (by the kernel for want of memory, or by hand)" if code == -signal.SIGKILL else ""
        return SandboxCrashed(f"sandbox killed by {_signal_name(-code)} in {self.function}{hint}")


class _Limit:
    """The two wall clock limits of one call."""

    def __init__(self, soft_s: float | None, grace_s: float) -> None:
        self.soft_s = soft_s
        self.grace_s = grace_s
        self.asked = False
        self.at = math.inf if soft_s is None else monotonic() + soft_s

    def wait_ms(self) -> int | None:
        """How long to listen before pass_on(); None: for ever."""
        return None if self.at == math.inf else max(0, math.ceil((self.at - monotonic()) * 1000))

    def pass_on(self, sandbox: Sandbox) -> None:
        """Ask the sandbox to end when the soft limit is over, kill it when the hard one is."""
        if monotonic() < self.at:
            return
        if not self.asked:
            self.asked = True
            self.at = monotonic() + self.grace_s
            sandbox.signal(SOFT_LIMIT_SIGNAL)
            return
        sandbox.kill()
        sandbox.exit_code()
        raise TimeLimitExceeded(f"killed {self.grace_s:g} s after its time limit of {self.soft_s:g} s")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _name(function: Callable[..., Any]) -> str:
    function = getattr(function, "fn", function)
    name = f"{function.__module__}:{function.__qualname__}"
    if "<" in name or function.__module__ == "__main__":
        raise ValueError(f"{name} cannot be called in a sandbox: it must have a name in a module that can be imported")
    return name


def _request(**call: Any) -> bytes:
    encoded = json.dumps(call).encode() + b"\n"
    if len(encoded) > MAX_REQUEST_BYTES:
        raise InvalidInput(
            f"{call['function']}: arguments of {len(encoded):,} bytes, a sandbox takes up to {MAX_REQUEST_BYTES:,}; "
            "put them into a file and give it as blob"
        )
    return encoded


async def run(
    function: str | Callable[..., Any],
    arguments: dict[str, JSON],
    *,
    blob: Path | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    time_limit_s: float | None = None,
    grace_s: float = GRACE_S,
    memory_mb: int | None = None,
    cpu_s: float | None = None,
) -> JSON:
    """A SandboxCall awaited, in a thread of the sandboxes' own; `memory_mb` is by default the setting's.

    Cancelled, it kills the sandbox and raises once that is dead. `on_progress` is called in the other thread.
    """
    call = SandboxCall(
        function,
        arguments,
        blob=blob,
        on_progress=on_progress,
        time_limit_s=time_limit_s,
        grace_s=grace_s,
        memory_mb=get_settings().sandbox_memory_mb if memory_mb is None else memory_mb,
        cpu_s=cpu_s,
    )
    context = contextvars.copy_context()
    future = asyncio.wrap_future(_running_pool().callers.submit(context.run, call.run))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        call.stop(Cancelled("cancelled while in a sandbox"))
        await settled(future)
        raise


def start_pool(size: int | None = None, preload: Sequence[str] = PRELOAD) -> None:
    """Warm the process's sandboxes before the first call; by default as many as the setting says.

    `preload` names modules the fork server imports once, for all sandboxes together; none may start threads when it is
    imported. Sandboxes that are there already stay as they are.
    """
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = Pool(size or get_settings().sandbox_count, preload)
        _pool.warm()


def stop_pool() -> None:
    """Kill all sandboxes; calls under way raise Interrupted. A later call starts new ones."""
    global _pool
    with _pool_lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.stop()


def server_pid() -> int | None:
    """The process that forks the sandboxes, for health pages; None while there are none."""
    pool = _pool
    return pool.server_pid if pool is not None else None


def _running_pool() -> Pool:
    pool = _pool
    if pool is None:
        start_pool()
        pool = _pool
    if pool is None:
        raise Interrupted("the sandboxes are being closed")
    return pool


def _forget_pool() -> None:
    global _pool, _pool_lock
    _pool_lock = threading.Lock()
    if _pool is not None:
        _pool.abandon()
        _pool = None


os.register_at_fork(after_in_child=_forget_pool)
atexit.register(stop_pool)
