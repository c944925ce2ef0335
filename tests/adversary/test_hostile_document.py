"""A document that owns its parser, under each kind of host: what it must not reach, and what parsers need."""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.jobs.sandbox import landlock, seccomp
from tests.adversary.hosts import DENIED, HOSTS, SECRET, common_folder, run_all
from tests.support.sandbox_rig import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        landlock.version() == 0 or not seccomp.is_known_machine(), reason="needs Linux with Landlock on a known machine"
    ),
]


def attempt(host: str, function: str, **arguments: Any) -> Any:
    return run_all(host, {"function": function, **arguments})[0]


@pytest.fixture
def treasure() -> Iterator[Path]:
    """A file outside of the call's folder that every user may read and change."""
    with tempfile.TemporaryDirectory(dir=common_folder()) as folder:
        os.chmod(folder, 0o777)
        path = Path(folder) / "millrace.db"
        path.write_text("rows of all tenants")
        path.chmod(0o666)
        yield path


def test_files_outside_the_folder_are_out_of_reach(host: str, treasure: Path) -> None:
    before = treasure.stat()
    outcomes = run_all(
        host,
        {"function": "read_file", "path": str(treasure)},
        {"function": "read_file", "path": "/etc/passwd"},
        {"function": "read_file", "path": "/proc/self/environ"},
        {"function": "list_folder", "path": str(treasure.parent)},
        {"function": "list_folder", "path": "/"},
        {"function": "write_file", "path": str(treasure)},
        {"function": "write_file", "path": str(treasure.with_name("new"))},
        {"function": "write_file", "path": "/dev/shm/hoard"},
        {"function": "write_file", "path": str(ROOT / "app" / "taken_over.py")},
    )
    assert set(outcomes) <= DENIED
    (changes,) = run_all(host, {"function": "change_file", "path": str(treasure)})
    assert set(changes) <= DENIED | {"EXDEV"}
    after = treasure.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime, after.st_size) == (
        before.st_mode, before.st_uid, before.st_mtime, before.st_size
    )  # fmt: skip


def test_no_link_or_pipe_can_be_left_for_the_host(host: str, treasure: Path) -> None:
    assert set(attempt(host, "link_to", path=str(treasure))) <= DENIED | {"EXDEV"}


def test_the_network_is_out_of_reach(host: str, redis_url: str) -> None:
    port = int(redis_url.rsplit(":", 1)[1].partition("/")[0])
    with socket.socket(socket.AF_UNIX) as listener, tempfile.TemporaryDirectory(dir=common_folder()) as folder:
        os.chmod(folder, 0o755)
        listener.bind(f"{folder}/redis.sock")
        os.chmod(f"{folder}/redis.sock", 0o777)
        listener.listen()
        outcomes = run_all(
            host,
            {"function": "connect", "address": ["127.0.0.1", port]},
            {"function": "connect", "address": f"{folder}/redis.sock"},
            {"function": "connect", "address": "\0millrace"},
            {"function": "open_ring"},
        )
    assert set(outcomes[:3]) <= DENIED
    assert outcomes[3] == errno.EPERM


def test_other_processes_are_out_of_reach(host: str) -> None:
    memory, signalled, parent, usual = run_all(
        host,
        {"function": "look_into", "pid": "HOST"},
        {"function": "signal_process", "pid": "HOST"},
        {"function": "signal_process", "pid": -1},
        {"function": "work_as_usual"},
    )
    assert set(memory) <= DENIED
    assert {signalled, parent} <= DENIED
    assert usual == "WORDS"


def test_no_secret_and_no_descriptor_is_inside(host: str) -> None:
    variables, has_secret, numbers = run_all(
        host,
        {"function": "environment"},
        {"function": "search_memory", "reversed_text": SECRET[::-1]},
        {"function": "descriptors"},
    )
    allowed = {"PATH", "LANG", "LC_CTYPE", "TMPDIR", "HOME", "MILLRACE_ROLE", "TOKENIZERS_PARALLELISM"}
    allowed |= {"MALLOC_ARENA_MAX", "PYTHONDONTWRITEBYTECODE"}
    assert {name for name in variables if not name.endswith("_NUM_THREADS")} <= allowed
    assert has_secret is False
    assert len(numbers) == 1  # the channel


def test_limits_cannot_be_raised(host: str) -> None:
    raised, fits, too_much = run_all(
        host,
        {"function": "raise_limits"},
        {"function": "take_memory", "mib": 200},
        {"function": "take_memory", "mib": 400},
    )
    assert raised[:3] == ["ValueError"] * 3
    assert raised[3] == "ValueError"
    assert fits == 200 * 1024 * 1024
    assert too_much == "SandboxOutOfMemory: needed more memory than its limit of 300 MiB"


def test_no_process_and_no_program_can_be_started(host: str) -> None:
    outcomes = run_all(
        host,
        {"function": "fork_and_take", "processes": 6, "mib": 200},
        {"function": "start_program", "path": sys.executable},
        {"function": "become_program", "path": sys.executable},
        {"function": "call_clone"},
        {"function": "use_a_thread"},
    )
    assert outcomes == ["EPERM", "EPERM", outcomes[2], errno.ENOSYS, "ran"]
    assert outcomes[2] in DENIED


def test_the_disk_cannot_be_filled(host: str) -> None:
    single, many, memory = run_all(
        host,
        {"function": "fill_one_file", "mib": 1500},
        {"function": "fill_many_files", "files": 8, "mib": 200},
        {"function": "share_memory"},
    )
    assert single == "InvalidInput: a file of more than 256 MiB would be written"
    assert many == "InvalidInput: more than 512 MiB would be written"
    assert memory == ["EPERM", "EPERM"]


def test_root_gives_a_sandbox_its_own_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (numbers,) = run_all("root", {"function": "users"})
    assert len(set(numbers)) == 1
    assert numbers[0] not in (0, os.getuid())


def test_a_document_meets_no_trace_of_the_one_before(host: str) -> None:
    first, second = run_all(host, {"function": "remember"}, {"function": "remember"})
    assert (first[0], second[0]) == (None, None)
    assert first[1] != second[1]


@pytest.mark.parametrize("name", ["Stale", "Interrupted", "Snooze"])
def test_a_document_cannot_choose_to_be_handed_back(name: str) -> None:
    assert attempt(HOSTS[-1], "fail_as", name=name).startswith("SandboxCrashed: ")
