"""`millrace all-in-one`: the only program of a container; its log, its end, and programs that are left out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import millrace
from tests.support.processes import Process, free_port, leftovers
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until


@pytest.fixture
def all_in_one(tmp_path: Path) -> Iterator[Process]:
    """Return the process, not started; its working directory is its data folder, as in the image."""
    folder = tmp_path / "data"
    folder.mkdir()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    env = plain | {
        "MILLRACE_PORT": str(free_port()),
        "MILLRACE_DATA_DIR": str(folder),
        "PYTHONPATH": str(REPOSITORY),
    }
    log = tmp_path / "all_in_one.log"
    process = Process("all-in-one", [sys.executable, "-m", "app", "all-in-one"], log=log, env=env, cwd=folder)
    yield process
    process.stop(60)


def _lines(process: Process) -> list[dict[str, Any]]:
    """Return the log; every line must be JSON."""
    return [json.loads(line) for line in process.log.read_text().splitlines()]


@pytest.mark.journey
@pytest.mark.timeout(240)
def test_it_serves_and_stops_and_starts_again(all_in_one: Process, tmp_path: Path) -> None:
    """It also starts after a kill -9 of every process; a program that is left out does not run."""
    all_in_one.env |= {"MILLRACE_PROGRAMS": "relay,api"}
    port = all_in_one.env["MILLRACE_PORT"]

    def is_ready() -> bool:
        assert all_in_one.alive, all_in_one.tail()
        return millrace("healthcheck", port, env=all_in_one.env).code == 0

    all_in_one.start()
    wait_until(is_ready, timeout_s=120, what="the system to be ready")
    for process in Path("/proc").glob("[0-9]*"):
        _kill_if_of(process, tmp_path / "data")
    all_in_one.kill()
    wait_until(lambda: not leftovers(tmp_path / "data"), timeout_s=30, what="everything to be gone")
    assert millrace("healthcheck", port, env=all_in_one.env).code == 1
    all_in_one.start()
    wait_until(is_ready, timeout_s=120, what="the system to be ready again")
    all_in_one.term()
    assert all_in_one.wait(60) == 0, all_in_one.tail()
    assert leftovers(tmp_path / "data") == []
    lines = _lines(all_in_one)
    assert {line["program"] for line in lines if "program" in line} == {"redis", "api", "relay"}
    assert {line["role"] for line in lines} == {"supervisor-listener", "api", "relay"}


def _kill_if_of(process: Path, folder: Path) -> None:
    try:
        if f"MILLRACE_DATA_DIR={folder}\0".encode() in (process / "environ").read_bytes() + b"\0":
            os.kill(int(process.name), 9)
    except OSError:
        return


@pytest.mark.journey
@pytest.mark.timeout(120)
def test_last_line_is_the_reason_why_a_program_cannot_start(
    all_in_one: Process, tmp_path: Path, redis_url: str
) -> None:
    all_in_one.env |= {
        "MILLRACE_PROGRAMS": "worker",
        "MILLRACE_MODULES": "nosuchmodule",
        "MILLRACE_REDIS_URL": redis_url,
    }
    all_in_one.start()
    assert all_in_one.wait(100) == 1, all_in_one.tail()
    last = json.loads(all_in_one.log.read_text().splitlines()[-1])
    assert "worker_00 does not stay up: " in last["event"]
    assert "MILLRACE_MODULES" in last["event"]
    assert leftovers(tmp_path / "data") == []


def test_a_wrong_setting_is_refused_before_any_program_starts(all_in_one: Process) -> None:
    ran = millrace("all-in-one", env=all_in_one.env | {"MILLRACE_PROGRAMS": "api,web"}, cwd=all_in_one.cwd)
    assert ran.code == 2
    assert "MILLRACE_PROGRAMS" in ran.err
