"""The sandboxes themselves: used again, replaced, clean, gone with their host."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import (
    AppError,
    InvalidInput,
    SandboxCrashed,
    TimeLimitExceeded,
)
from app.jobs.sandbox import process_pool
from app.jobs.sandbox.call import run
from app.jobs.sandbox.child import MAX_CALLS
from app.jobs.sandbox.pool import sandbox_environment
from app.jobs.sandbox.protocol import SandboxFailed
from tests.support import sandbox_functions
from tests.support.sandbox_rig import HERE, ROOT, SECRETS, all_dead, call, is_alive, on_linux, pids_in
from tests.support.waiting import wait_until


def test_two_calls_run_at_once(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """Neither waits for the other, and the crash of one is not the other's."""
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    first = threads.submit(call, "meet", mine=one, other=other)
    wait_until((tmp_path / "one").exists, what="the first call")
    with pytest.raises(SandboxCrashed):
        call("segfault")
    assert call("meet", mine=other, other=one) is True
    assert first.result(timeout=5) is True


def test_sandbox_is_used_again_and_wears_out(one_sandbox: None) -> None:
    """The same process serves many calls, then another one takes over."""
    pids = [call("group")[0] for _ in range(MAX_CALLS + 1)]
    assert len(set(pids[:MAX_CALLS])) == 1
    assert pids[MAX_CALLS] != pids[0]


@pytest.mark.parametrize(("name", "arguments"), [("keep", {"mib": 160}), ("leave_thread", {}), ("leave_child", {})])
@on_linux
def test_sandbox_that_was_left_dirty_is_replaced(name: str, arguments: dict[str, Any], one_sandbox: None) -> None:
    """Grown by more than 128 MiB, or with a thread or a process still in it."""
    assert call(name, **arguments) != call("group")[0]


@pytest.mark.parametrize("error", ["invalid", "foreign", "unavailable"])
def test_sandbox_of_a_plain_exception_is_used_again(error: str, one_sandbox: None) -> None:
    before = call("group")[0]
    with pytest.raises((AppError, SandboxFailed)):
        call("fail", error=error)
    assert call("group")[0] == before


def test_sandbox_that_was_interrupted_is_replaced(one_sandbox: None) -> None:
    """A time limit or an exit may have left anything half done."""
    before = call("group")[0]
    with pytest.raises(TimeLimitExceeded):
        call("spin", time_limit_s=0.1)
    after = call("group")[0]
    with pytest.raises(SandboxFailed):
        call("fail", error="exit")
    assert len({before, after, call("group")[0]}) == 3


@pytest.mark.parametrize("name", sorted(sandbox_functions.CHANGES))
@pytest.mark.parametrize("fails", [False, True])
def test_no_later_call_meets_what_an_earlier_one_changed(name: str, fails: bool, one_sandbox: None) -> None:
    """Folder, umask, environment, locale, handlers, timers, limits and more; after a failure as well."""
    before = call("process_state")
    if fails:
        with pytest.raises(SandboxFailed):
            call("change", name=name, fails=True)
    else:
        call("change", name=name)
    assert call("process_state") == before


def test_sandboxes_have_their_own_group_and_ignore_the_hosts_signals() -> None:
    """Ctrl-C and SIGTERM are the host's business."""
    pid, group = call("group")
    assert pid == group
    for number in (signal.SIGINT, signal.SIGTERM):
        assert call("interrupted_by", number=int(number)) == "still here"


def test_dead_idle_sandbox_is_not_handed_out(one_sandbox: None) -> None:
    """Killed while idle."""
    pid = call("group")[0]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), what="its death")
    assert call("group")[0] != pid


@on_linux
def test_fork_server_is_replaced(tmp_path: Path, one_sandbox: None, threads: ThreadPoolExecutor) -> None:
    """Its death takes its sandboxes with it; the call fails, the next one finds new sandboxes."""
    note = tmp_path / "note"
    future = threads.submit(call, "meet", mine=str(note), other=str(tmp_path / "never"))
    wait_until(note.exists, what="the call")
    server = process_pool.server_pid()
    assert server is not None
    os.kill(server, signal.SIGKILL)
    with pytest.raises(SandboxCrashed, match="fork server has ended"):
        future.result(timeout=10)
    assert call("add", left=1, right=1) == 2
    assert process_pool.server_pid() != server


# Isolation


def test_no_secrets_inside() -> None:
    """Neither as variables nor in the process's memory of how it was started."""
    environment = call("environment")
    assert environment["MILLRACE_ROLE"] == "lane"
    assert not set(SECRETS) & set(environment)
    if sys.platform == "linux":
        assert "s3cret-value" not in call("raw_environment")


def test_what_counts_as_a_secret() -> None:
    """Names and passwords in URLs; settings that merely sound alike stay."""
    kept = sandbox_environment(
        {
            **SECRETS,
            "MILLRACE_API_SECRET_FILE": "/run/secrets/api",
            "GITHUB_TOKEN": "x",
            "MILLRACE_CHUNK_TOKENS": "256",
            "MILLRACE_EMBEDDER_URL": "http://host:80/path@2",
            "PATH": "/bin",
        }
    )
    assert {"MILLRACE_CHUNK_TOKENS", "MILLRACE_EMBEDDER_URL", "PATH", "MILLRACE_ROLE"} <= set(kept)
    assert not {*SECRETS, "MILLRACE_API_SECRET_FILE", "GITHUB_TOKEN"} & set(kept)


@on_linux
def test_no_descriptors_but_its_own() -> None:
    """Stdio and the channel: no socket of the host, none of another sandbox."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    process_pool.stop_pool()
    process_pool.start_pool(2, preload=[HERE])
    try:
        assert len(call("descriptors")) == 1
    finally:
        os.close(reader)
        os.close(writer)


# The host's death, and its forks

_HOST = """
import threading
from app.core.logging import bind, unbind
from app.jobs.sandbox import process_pool
from app.jobs.sandbox.call import SandboxCall
process_pool.start_pool(3)
SandboxCall("tests.support.sandbox_functions:sit", {"note": %r}, time_limit_s=None, memory_mb=None, access="open").run()
"""

_FORKING_HOST = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from app.core.logging import bind, unbind
from app.jobs.sandbox import process_pool
from app.jobs.sandbox.call import SandboxCall

def call(_):
    return SandboxCall("os:getppid", {}, time_limit_s=20, memory_mb=None, access="open").run()

first = call(0)
child = os.fork()
with ThreadPoolExecutor(32) as threads:
    servers = set(threads.map(call, range(64)))
if child == 0:
    assert first not in servers, "the child used its parent's sandboxes"
    process_pool.stop_pool()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert servers == {first}, "the parent lost its sandboxes"
assert call(0) == first
process_pool.stop_pool()
print("both well")
"""


@on_linux
def test_nobody_outlives_the_host(tmp_path: Path) -> None:
    """kill -9 of the host takes fork server, sandboxes and all that these started."""
    note = tmp_path / "note"
    host = subprocess.Popen([sys.executable, "-c", _HOST % str(note)], cwd=ROOT)
    try:
        pids = pids_in(note)
        relatives = _family_of(host.pid)
        assert set(pids) <= relatives
        assert len(relatives) >= 6  # server, three sandboxes, the child and the daemon
    finally:
        host.kill()
        host.wait()
    all_dead(sorted(relatives))


def _family_of(ancestor: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    family = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {ancestor}


def test_forked_host_has_sandboxes_of_its_own() -> None:
    """As under Dramatiq, whose workers are forks, with 32 threads each."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKING_HOST], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (0, "both well\n"), done.stderr


# From async code


@pytest.mark.anyio
async def test_awaited_result() -> None:
    """The loop goes on during the calls."""
    several = [run(sandbox_functions.add, {"left": n, "right": n}) for n in range(5)]
    assert await asyncio.gather(*several) == [0, 2, 4, 6, 8]
    with pytest.raises(InvalidInput):
        await run(sandbox_functions.fail, {"error": "invalid"}, access="open")


@pytest.mark.anyio
async def test_cancelled_task_kills_its_sandbox(tmp_path: Path) -> None:
    """The cancellation is raised when the sandbox is dead, well within two seconds."""
    note = tmp_path / "note"
    task = asyncio.create_task(run(sandbox_functions.sit, {"note": str(note)}, access="open"))
    pids = await asyncio.to_thread(pids_in, note)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 2
    assert not is_alive(pids[0])
    all_dead(pids)


@pytest.mark.anyio
async def test_cancelled_twice_and_in_line(tmp_path: Path) -> None:
    """More tasks than sandboxes: those in line go at once, and a second cancellation changes nothing."""
    notes = [tmp_path / str(number) for number in range(2)]
    never = str(tmp_path / "never")
    tasks = [
        asyncio.create_task(run(sandbox_functions.meet, {"mine": str(note), "other": never}, access="open"))
        for note in notes
    ]
    await asyncio.to_thread(wait_until, lambda: all(note.exists() for note in notes), what="two running calls")
    in_line = asyncio.create_task(run(sandbox_functions.add, {"left": 1, "right": 1}))
    await asyncio.sleep(0)
    for task in (in_line, *tasks, *tasks):
        task.cancel()
    outcomes = await asyncio.gather(in_line, *tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert await run(sandbox_functions.add, {"left": 1, "right": 1}) == 2


def test_threads_of_the_host_share_the_sandboxes() -> None:
    """Thirty-two job threads on two sandboxes: all are served, and no thread is left over."""
    before = threading.active_count()
    with ThreadPoolExecutor(32) as many:
        assert list(many.map(lambda n: call("add", left=n, right=n), range(100))) == [2 * n for n in range(100)]
    assert threading.active_count() < before + 8
