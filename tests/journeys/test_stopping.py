"""Stop means stop: each process ends within its time, whatever a user's module has left running."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.processes import Process
from tests.support.stack import Stack

# Of a process without work, on a busy machine. Each has at least 15 s before it is killed.
MAX_STOP_S = 12.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_thread_of_a_users_module_keeps_no_process_from_stopping(stack: Stack, number: signal.Signals) -> None:
    stack.env |= {"MILLRACE_MODULES": "tests.support.lingering_kinds", "MILLRACE_GRACE_S": "1"}
    stack.start(workers=1, scheduler=True)
    assert stack.api is not None
    (scheduler,) = stack.schedulers
    scheduler.wait_for_port(stack.health_port(scheduler), 40)
    for process in (stack.api, stack.relays[0], scheduler, stack.workers[0]):
        _stop(process, number)


def _stop(process: Process, number: signal.Signals) -> None:
    os.kill(process.pid, number)
    assert process.wait(MAX_STOP_S) == 0, process.tail()
