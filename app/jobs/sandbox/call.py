"""Calls into sandboxes: child processes that can be killed, bounded in memory, CPU and wall-clock time.

    call = SandboxCall("app.documents.extract.file:extract_file", {"name": "a.pdf"}, blob=path, time_limit_s=60)
    pages = call.run()                      # blocks; another thread may call.stop(Cancelled("..."))

    pages = await run(extract, {"kind": "pdf"}, blob=path, time_limit_s=60)      # a step of an async job

A call is closed by default: its code has no network, starts no program or process, and reaches no file but those that
Python needs and the folder of its blob, which must hold nothing else. That is for code that reads foreign bytes. Plain
functions of your own kinds run with `access="open"`, see `box`.

The function is named (`module:qualname`), imported in the sandbox and called with JSON arguments, with `blob` (a Path)
if the call has one, and with `progress` if it has such a parameter. It returns JSON, or raises: an error of our tree
arrives as the same class, a foreign one as SandboxFailed. A sandbox has no secrets, no SQL and no Redis, and dies with
this process.

The time limit counts from the moment the sandbox has the call, not from the wait for a free one. At `time_limit_s`
TimeLimitExceeded is raised inside; `grace_s` later the process group is killed. Death without an answer is
SandboxCrashed. CPU over `cpu_s` is TimeLimitExceeded. Memory over `memory_mb` is SandboxOutOfMemory if the code
notices; C code that dies of a refused allocation has crashed. The processes of an open sandbox together may take as
much as one.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, TypeAlias

from app.core.errors import (
    AppError,
    Cancelled,
    Interrupted,
    InvalidInput,
    Rejected,
    SandboxCrashed,
    SandboxOutOfMemory,
    TimeLimitExceeded,
)
from app.core.logging import bound, get_logger
from app.core.settings import get_settings
from app.core.waiting import settled
from app.jobs.sandbox import box, job_log
from app.jobs.sandbox.box import Access
from app.jobs.sandbox.call_limits import CallLimits
from app.jobs.sandbox.child import MAX_REQUEST_BYTES
from app.jobs.sandbox.pool import Sandbox, SandboxPool, sandbox_environment
from app.jobs.sandbox.process_pool import running_pool
from app.jobs.sandbox.protocol import FrameReader, SandboxFailed, garbage, rebuild_error
from app.jobs.sandbox.usage import Usage

JSON: TypeAlias = Any
DEFAULT_GRACE_S = 2.0
CPU_LIMIT = "cpu_limit"

_CHUNK_BYTES = 256 * 1024
_REPORTED = {"done", "total", "unit", "stage", "message"}
_ERRORS_OF_PARSERS = (InvalidInput, Rejected, SandboxOutOfMemory, TimeLimitExceeded)
_MAX_STARTS = 3
_MAX_DYING_S = 0.5

log = get_logger(__name__)


class _Answered(Exception):
    """An error that the sandbox sent as its answer; the sandbox itself may be fine."""

    def __init__(self, failure: Exception, *, reusable: bool) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.reusable = reusable


class SandboxCall:
    """One run in a sandbox. It is made before it runs, so that another thread can stop it."""

    def __init__(
        self,
        function: str | Callable[..., Any],
        arguments: dict[str, JSON],
        *,
        blob: Path | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        time_limit_s: float | None,
        grace_s: float = DEFAULT_GRACE_S,
        memory_mb: int | None,
        cpu_s: float | None = None,
        access: Access = "closed",
        programs: Sequence[str] = (),
    ) -> None:
        """Raises InvalidInput if the arguments are over 1 MiB: pass such data by `blob`.

        `programs` are those that the code of a closed call may start by `programs.run`.
        `on_progress` gets the reported fields of {done, total, unit, stage, message}, in the thread of run().
        """
        self.function = function if isinstance(function, str) else _qualified_name(function)
        self._request = _request(
            function=self.function,
            arguments=arguments,
            blob=str(blob.resolve()) if blob else None,
            time_limit_s=time_limit_s,
            memory_mb=memory_mb,
            cpu_s=cpu_s,
            programs=list(programs),
            log_context={name: str(value) for name, value in bound().items()} | {"role": "lane"},
        )
        self._access: Access = access
        self._folder = blob.resolve().parent if blob else None
        self._memory_mb = memory_mb
        self._on_progress = on_progress
        self._time_limit_s = time_limit_s
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._reservation: Future[Sandbox] = Future()
        self._pool: SandboxPool | None = None
        self._sandbox: Sandbox | None = None
        self._reason: AppError | None = None

    @classmethod
    def of_job(
        cls,
        definition: str,
        payload: dict[str, Any],
        function: str | Callable[..., Any],
        *,
        version: int | None = None,
        **options: Any,
    ) -> SandboxCall:
        """Return a call of a plain `def function(job, progress)`; the payload is loaded by `definition` inside.

        version: that of the payload's form, by default the newest.
        """
        name = function if isinstance(function, str) else _qualified_name(function)
        arguments = {"definition": definition, "payload": payload, "function": name, "version": version}
        return cls("app.jobs.sandbox.child:call_job", arguments, access="open", **options)

    def stop(self, reason: AppError) -> None:
        """Kill the sandbox's group, or leave the queue for one; run() raises `reason`. The first reason stays.

        May be called from any thread.
        """
        with self._lock:
            if self._reason is None:
                self._reason = reason
            if self._sandbox is not None:
                self._sandbox.kill()
            pool, reservation = self._pool, self._reservation
        if pool is not None:
            pool.give_up(reservation)

    def run(self) -> JSON:
        """Block and return the result. When it raises, no code of the call runs any more."""
        pool = running_pool()
        with self._lock:
            if self._reason is not None:
                raise self._reason
            self._pool = pool
        sandbox = self._take(pool)
        reusable = False
        try:
            result, reusable = self._converse(sandbox, pool)
        except _Answered as answer:
            reusable = answer.reusable
            raise answer.failure from answer.failure.__cause__
        finally:
            sandbox.log_output(self.function)
            with self._lock:
                self._sandbox = None
            if not reusable:
                sandbox.kill()
            pool.give_back(sandbox, reusable=reusable)
        return result

    def _take(self, pool: SandboxPool) -> Sandbox:
        for _ in range(_MAX_STARTS):
            try:
                sandbox = pool.take(self._reservation, self._access, self.function.partition(":")[0])
            except CancelledError:
                raise self._reason or Interrupted("the call was stopped") from None
            with self._lock:
                stopped = self._reason
                self._sandbox = sandbox if stopped is None else None
            if stopped is not None:
                pool.give_back(sandbox, reusable=True)
                raise stopped
            if sandbox.is_ready() and sandbox.fits(self._memory_mb):
                return sandbox
            with self._lock:
                stopped, self._sandbox, self._reservation = self._reason, None, Future()
            pool.give_back(sandbox, reusable=False)
            if stopped is not None:
                raise stopped
        raise SandboxCrashed("no sandbox could be started; this process's stderr has the reason")

    def _converse(self, sandbox: Sandbox, pool: SandboxPool) -> tuple[JSON, bool]:
        """Return the result, and True if the sandbox may be used again."""
        outgoing = memoryview(self._addressed(sandbox))
        frames = FrameReader()
        limits = CallLimits(self._time_limit_s, self._grace_s, Usage(sandbox, self._folder, self._memory_mb))
        channel, leash = sandbox.channel.fileno(), sandbox.leash.fileno()
        poll = select.poll()
        poll.register(channel, select.POLLIN | select.POLLOUT)
        poll.register(leash, select.POLLIN)
        if sandbox.output is not None:
            poll.register(sandbox.output, select.POLLIN)
        while True:
            ready = dict(poll.poll(limits.wait_ms()))
            if sandbox.output in ready and not sandbox.read_output():
                poll.unregister(sandbox.output)
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
                            job_log.record_sandbox_line(frame["log"])
                        else:
                            return self._end(frame, sandbox, pool, clean=frames.empty)
            except (BrokenPipeError, ConnectionResetError):
                raise self._death(sandbox, pool) from None
            if not events and leash in ready:
                raise self._death(sandbox, pool)
            limits.enforce(sandbox)

    def _addressed(self, sandbox: Sandbox) -> bytes:
        """Return the request with the fields that depend on the sandbox."""
        fields: dict[str, Any] = {}
        if sandbox.access == "closed":
            assert sandbox.pid is not None
            size = sum(entry.stat().st_size for entry in os.scandir(self._folder)) if self._folder else 0
            fields["file_bytes"] = max(box.MIN_FILE_BYTES, size)
            fields["uid"] = box.give_folder(self._folder, sandbox.pid) if self._folder else box.own_user(sandbox.pid)
        elif sandbox.is_new:
            fields["environment"] = sandbox_environment(os.environ)
        sandbox.is_new = False
        sandbox.memory_mb = sandbox.memory_mb or self._memory_mb
        return json.dumps(fields).encode()[:-1] + (b", " if fields else b"") + self._request[1:]

    def _report(self, report: Any) -> None:
        if not isinstance(report, dict) or not report.keys() <= _REPORTED:
            raise garbage(report)
        if self._on_progress is not None:
            self._on_progress(report)

    def _end(self, frame: dict[str, Any], sandbox: Sandbox, pool: SandboxPool, *, clean: bool) -> tuple[JSON, bool]:
        if self._reason is not None:
            raise self._reason
        reusable = clean and frame.get("worn") is False and self._access == "open"
        if "result" in frame:
            return frame["result"], reusable
        try:
            failure = rebuild_error(frame["error"])
        except (KeyError, TypeError, ValueError):
            raise garbage(frame) from None
        if self._access == "closed" and not isinstance(failure, (*_ERRORS_OF_PARSERS, SandboxFailed)):
            # Foreign bytes must not choose an error that hands the job back or never ends it.
            reason = f"{self.function} ended with {type(failure).__name__}: {failure}"
            failure = SandboxCrashed(reason, by_code=True)
        raise _Answered(failure, reusable=reusable)

    def _death(self, sandbox: Sandbox, pool: SandboxPool) -> AppError:
        """Wait for the death of the sandbox and return its cause as an error."""
        code = sandbox.wait_exit_code(_MAX_DYING_S)
        sandbox.kill()
        closed_channel = code is None and sandbox.wait_exit_code() is not None
        if self._reason is not None:
            return self._reason
        if pool.stopped:
            return Interrupted("the sandboxes are being closed")
        if closed_channel:
            return SandboxCrashed(f"sandbox closed its channel in {self.function} without an answer", by_code=True)
        if code is None:
            return SandboxCrashed(f"sandbox lost in {self.function}: the fork server has ended")
        if code >= 0:
            reason = f"sandbox exited with status {code} in {self.function} without an answer"
            return SandboxCrashed(reason, by_code=True)
        if code == -signal.SIGXCPU:
            return TimeLimitExceeded(f"{self.function} used more than its CPU time", code=CPU_LIMIT)
        hint = " (by the kernel when memory ran out, or by a person)" if code == -signal.SIGKILL else ""
        reason = f"sandbox killed by {_signal_name(-code)} in {self.function}{hint}"
        return SandboxCrashed(reason, by_code=code != -signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _qualified_name(function: Callable[..., Any]) -> str:
    function = getattr(function, "fn", function)
    name = f"{function.__module__}:{function.__qualname__}"
    if "<" in name or function.__module__ == "__main__":
        raise ValueError(f"{name} cannot be called in a sandbox: it must be importable by its name")
    return name


def _request(**call: Any) -> bytes:
    encoded = json.dumps(call).encode() + b"\n"
    if len(encoded) > MAX_REQUEST_BYTES:
        raise InvalidInput(
            f"{call['function']}: arguments have {len(encoded):,} bytes, at most {MAX_REQUEST_BYTES:,} are allowed; "
            "pass a file as blob"
        )
    return encoded


async def run(
    function: str | Callable[..., Any],
    arguments: dict[str, JSON],
    *,
    blob: Path | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    time_limit_s: float | None = None,
    grace_s: float = DEFAULT_GRACE_S,
    memory_mb: int | None = None,
    cpu_s: float | None = None,
    access: Access = "closed",
    programs: Sequence[str] = (),
) -> JSON:
    """Await a SandboxCall in a thread of the pool; `memory_mb` is by default the setting's.

    A cancel kills the sandbox, and is raised once that is dead. `on_progress` is called in the other thread.
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
        access=access,
        programs=programs,
    )
    context = contextvars.copy_context()
    future = asyncio.wrap_future(running_pool().callers.submit(context.run, call.run))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        call.stop(Cancelled("cancelled while in a sandbox"))
        await settled(future)
        raise


async def parse(function: str, arguments: dict[str, JSON], *, blob: Path, **options: Any) -> JSON:
    """Await a closed call that reads foreign bytes. A second crash on them is their fault, and so is too much CPU time.

    Raises InvalidInput (broken_document) then: no later try would end in another way. `options` are those of `run`.
    """
    try:
        try:
            return await run(function, arguments, blob=blob, **options)
        except SandboxCrashed as error:
            if not error.by_code:
                raise
            log.warning("parser_crashed", function=function, reason=error.message)
        return await run(function, arguments, blob=blob, **options)
    except SandboxCrashed as error:
        if not error.by_code:
            raise
        raise InvalidInput(f"its parser crashed twice: {error.message}", code="broken_document") from error
    except TimeLimitExceeded as error:
        if error.code != CPU_LIMIT:
            raise
        raise InvalidInput(f"its parser takes too long: {error.message}", code="broken_document") from error
