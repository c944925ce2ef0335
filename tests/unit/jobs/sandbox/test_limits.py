"""Ends of a call: its limits, a stop, a closed pool."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import (
    Cancelled,
    Interrupted,
    SandboxCrashed,
    SandboxOutOfMemory,
    TimeLimitExceeded,
)
from app.jobs.sandbox import process_pool
from tests.support import sandbox_functions
from tests.support.sandbox_rig import all_dead, call, is_alive, make, on_linux, pids_in
from tests.support.waiting import wait_until


@on_linux
def test_memory_limit() -> None:
    """It counts what the call takes, and only kills the call."""
    assert call("allocate", mib=100, memory_mb=200) == 100 * sandbox_functions.MIB
    with pytest.raises(SandboxOutOfMemory, match="limit of 200 MiB"):
        call("allocate", mib=300, memory_mb=200)
    assert call("allocate", mib=300, memory_mb=400) == 300 * sandbox_functions.MIB


def test_soft_limit_lets_the_function_tidy_up(tmp_path: Path) -> None:
    """TimeLimitExceeded is raised inside first."""
    with pytest.raises(TimeLimitExceeded, match=r"time limit of 0\.2 s"):
        call("tidy_up", note=str(tmp_path / "note"), time_limit_s=0.2, grace_s=20)
    assert (tmp_path / "note").read_text() == "tidy"


def test_soft_limit_ends_computing() -> None:
    """A loop without any waiting is interrupted as well."""
    with pytest.raises(TimeLimitExceeded):
        call("spin", time_limit_s=0.2, grace_s=20)


def test_hard_limit_kills_a_call_that_ignores_the_soft_limit() -> None:
    """After the grace the sandbox is killed."""
    started = time.monotonic()
    with pytest.raises(TimeLimitExceeded, match=r"killed 0\.2 s after"):
        call("stubborn", time_limit_s=0.2, grace_s=0.2)
    assert time.monotonic() - started < 3


def test_cpu_limit() -> None:
    """Counted from the call on, not from the sandbox's birth."""
    for _ in range(2):
        with pytest.raises(TimeLimitExceeded, match="CPU"):
            call("spin", cpu_s=0.1)


# Stopping


@on_linux
def test_stop_kills_the_sandbox_and_all_it_started(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """Also what has left the sandbox's process group."""
    running = make("sit", note=str(tmp_path / "note"))
    future = threads.submit(running.run)
    pids = pids_in(tmp_path / "note")
    assert len(pids) == 3
    started = time.monotonic()
    running.stop(Cancelled("by hand"))
    with pytest.raises(Cancelled, match="by hand"):
        future.result(timeout=5)
    assert time.monotonic() - started < 2
    assert not is_alive(pids[0])
    all_dead(pids)


@on_linux
def test_death_of_a_sandbox_takes_all_it_started(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """A sandbox that crashed leaves no process behind either."""
    future = threads.submit(call, "sit", note=str(tmp_path / "note"))
    pids = pids_in(tmp_path / "note")
    os.kill(pids[0], signal.SIGSEGV)
    with pytest.raises(SandboxCrashed, match="SIGSEGV"):
        future.result(timeout=5)
    all_dead(pids)


def test_stop_while_waiting_for_a_sandbox(tmp_path: Path, one_sandbox: None, threads: ThreadPoolExecutor) -> None:
    """A queued call leaves the queue at once, and the running call is not disturbed."""
    release = tmp_path / "release"
    first_runs = tmp_path / "first"
    first = threads.submit(call, "meet", mine=str(first_runs), other=str(release))
    wait_until(first_runs.exists, what="the first call")
    second = make("add", left=1, right=1)
    waiting = threads.submit(second.run)
    third = threads.submit(call, "add", left=2, right=2)
    wait_until(waiting.running, what="the second call to be under way")
    second.stop(Cancelled("no longer wanted"))
    with pytest.raises(Cancelled, match="no longer wanted"):
        waiting.result(timeout=5)
    release.touch()
    assert first.result(timeout=5) is True
    assert third.result(timeout=5) == 4


def test_stop_before_and_after_the_run() -> None:
    """Stopped early it never starts; a late stop does not affect the call that has its sandbox now."""
    early = make("add", left=1, right=1)
    early.stop(Cancelled("early"))
    early.stop(Interrupted("and once more"))
    with pytest.raises(Cancelled, match="early"):
        early.run()
    late = make("add", left=1, right=1)
    assert late.run() == 2
    late.stop(Cancelled("late"))
    assert call("add", left=1, right=1) == 2


def test_stop_at_any_moment(threads: ThreadPoolExecutor) -> None:
    """Whenever it comes, the run ends with its result or the reason, and the sandboxes stay whole."""
    for _ in range(40):
        racing = make("add", left=1, right=1)
        future: Future[Any] = threads.submit(racing.run)
        racing.stop(Cancelled("race"))
        try:
            assert future.result(timeout=5) == 2
        except Cancelled as error:
            assert error.message == "race"
    assert [call("add", left=1, right=1) for _ in range(4)] == [2] * 4


def test_closing_the_pool_interrupts_calls(tmp_path: Path, one_sandbox: None, threads: ThreadPoolExecutor) -> None:
    """Running and waiting ones alike: the job is handed back, not failed."""
    first_runs = tmp_path / "first"
    running = threads.submit(call, "meet", mine=str(first_runs), other=str(tmp_path / "never"))
    wait_until(first_runs.exists, what="the call")
    waiting = threads.submit(call, "add", left=1, right=1)
    wait_until(waiting.running, what="the waiting call")
    process_pool.stop_pool()
    with pytest.raises(Interrupted):
        running.result(timeout=5)
    with suppress(Interrupted):  # unless it came after the end, and began new sandboxes
        assert waiting.result(timeout=5) == 2


# The pool
