"""Sandboxes: the price of a call, of a cancel and of an idle sandbox, beside a bare multiprocessing child a call.

python -m tests.bench.sandboxes
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from app.core.errors import Cancelled
from app.jobs.sandbox import process_pool
from app.jobs.sandbox.call import SandboxCall
from app.jobs.sandbox.child_progress import SandboxProgress

CALLS = 1000
PEER_CALLS = 30
CANCELS = 30


def nothing() -> None:
    return None


def wait_for_ever(progress: SandboxProgress) -> None:
    progress.report(1)
    threading.Event().wait()


def answer(pipe: Connection) -> None:
    pipe.send(None)


def sandbox_pid() -> int:
    """Imported and called in a sandbox, which tells its own pid."""
    return multiprocessing.current_process().pid or 0


def timed_ms(times: int, action: Callable[[], object]) -> list[float]:
    """Milliseconds of each run, shortest first."""
    measured = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        measured.append((time.perf_counter() - started) * 1000)
    return sorted(measured)


def in_a_sandbox() -> None:
    SandboxCall("tests.bench.sandboxes:nothing", {}, time_limit_s=30, memory_mb=512, access="open").run()


def in_a_bare_child() -> None:
    """What one would write without sandboxes: a forkserver child a call, so that it can be killed."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    child = context.Process(target=answer, args=(theirs,))
    child.start()
    ours.recv()
    child.join()


def cancels_ms() -> list[float]:
    """From stop() to run() having raised, of calls that run and do not listen."""
    measured = []
    for _ in range(CANCELS):
        runs = threading.Event()
        call = SandboxCall(
            "tests.bench.sandboxes:wait_for_ever",
            {},
            on_progress=lambda _, runs=runs: runs.set(),  # type: ignore[misc]
            time_limit_s=None,
            memory_mb=512,
        )
        thread = threading.Thread(target=_expect_cancel, args=(call,))
        thread.start()
        runs.wait()
        started = time.perf_counter()
        call.stop(Cancelled("bench"))
        thread.join()
        measured.append((time.perf_counter() - started) * 1000)
    return sorted(measured)


def _expect_cancel(call: SandboxCall) -> None:
    try:
        call.run()
    except Cancelled:
        return
    raise AssertionError("the call was not cancelled")


def memory_kib(pid: int) -> dict[str, int]:
    """The kernel's sums: Pss (each shared page split among its users), Private_Dirty (its own alone)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split()[0].rstrip(":"): int(line.split()[1]) for line in lines}


def row(name: str, measured: list[float]) -> None:
    p99 = measured[min(len(measured) - 1, int(len(measured) * 0.99))]
    print(f"{name:<44} p50 {statistics.median(measured):8.2f} ms   p99 {p99:8.2f} ms")


def measure(size: int = 2) -> None:
    """Print the rows."""
    started = time.perf_counter()
    process_pool.start_pool(size, preload=[*process_pool.PRELOAD, "tests.bench.sandboxes"])
    in_a_sandbox()
    print(f"{'first call, fork server started for it':<44} {(time.perf_counter() - started) * 1000:12.0f} ms")
    row("warm call that does nothing", timed_ms(CALLS, in_a_sandbox))
    in_a_bare_child()
    row("bare multiprocessing forkserver child", timed_ms(PEER_CALLS, in_a_bare_child))
    row("cancel: stop() until run() has raised", cancels_ms())
    server = process_pool.server_pid()
    if sys.platform == "linux" and server is not None:
        pid = SandboxCall("tests.bench.sandboxes:sandbox_pid", {}, time_limit_s=30, memory_mb=512, access="open").run()
        for name, one in (("fork server", server), (f"idle sandbox, one of {size}", pid)):
            used = memory_kib(one)
            print(f"{name:<44} PSS {used['Pss'] / 1024:6.1f} MiB   its own {used['Private_Dirty'] / 1024:6.1f} MiB")
    process_pool.stop_pool()


if __name__ == "__main__":
    measure()
