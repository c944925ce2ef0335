"""A plain function of a user's own kind: it has files and network, and no way into the processes around it."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from app.jobs.sandbox import landlock
from tests.adversary.hosts import DENIED, SECRET, common_folder, run_all

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(landlock.version() < 6, reason="needs Linux 6.12 or newer with Landlock"),
]


def opened(function: str, **arguments: Any) -> dict[str, Any]:
    return {"function": function, "access": "open", **arguments}


def test_the_processes_around_are_out_of_reach(host: str) -> None:
    """The worker, and one that hides nothing, such as the init of a container with the same environment."""
    memory, signalled, memory_of_init = run_all(
        host,
        opened("look_into", pid="HOST"),
        opened("signal_process", pid="HOST"),
        opened("look_into", pid=os.getpid()),
    )
    assert set(memory) <= DENIED
    assert signalled in DENIED
    assert set(memory_of_init) <= DENIED


def test_memory_is_limited_for_one_process_and_for_all(host: str) -> None:
    fits, too_much, forked = run_all(
        host,
        opened("take_memory", mib=250),
        opened("take_memory", mib=400),
        opened("fork_and_take", processes=6, mib=200),
    )
    assert fits == 250 * 1024 * 1024
    assert too_much == "SandboxOutOfMemory: needed more memory than its limit of 300 MiB"
    assert forked == "SandboxOutOfMemory: its processes needed more memory than its limit of 300 MiB"


def test_files_programs_and_network_are_at_hand(host: str) -> None:
    path = Path(common_folder()) / f"written-by-{host}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=_answer_once, args=(server,))
        answer.start()
        written, started, talked, variables = run_all(
            host,
            opened("write_file", path=str(path)),
            opened("start_program", path="/bin/sh"),
            opened("connect", address=list(server.getsockname())),
            opened("environment"),
        )
        answer.join()
    assert written == len("taken over")
    assert started == 0
    assert talked == "PONG"
    assert variables["ODD_NAME"] == SECRET  # not known to be a secret
    assert "MILLRACE_API_SECRET" not in variables


def _answer_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(100)
        connection.sendall(b"PONG")
