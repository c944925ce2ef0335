"""`millrace single`: a container's only program; its log, its end, and what is left out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.processes.supervisor_listener import Minder, redis_answers
from tests.support.command import millrace
from tests.support.processes import Process, free_port, leftovers
from tests.support.services import RedisServer
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Process]:
    """Not started; its working directory is its data folder, as in the image."""
    folder = tmp_path / "data"
    folder.mkdir()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    env = plain | {
        "MILLRACE_PORT": str(free_port()),
        "MILLRACE_DATA_DIR": str(folder),
        "PYTHONPATH": str(REPOSITORY),
    }
    log = tmp_path / "single.log"
    process = Process("single", [sys.executable, "-m", "app", "single"], log=log, env=env, cwd=folder)
    yield process
    process.stop(60)


def _lines(process: Process) -> list[dict[str, Any]]:
    """Its log, every line of which is JSON."""
    return [json.loads(line) for line in process.log.read_text().splitlines()]


@pytest.mark.journey
@pytest.mark.timeout(240)
def test_it_serves_and_stops_and_starts_again(single: Process, tmp_path: Path) -> None:
    """Also after a kill -9 of everything, on what it left; a program that is left out is not started."""
    single.env |= {"MILLRACE_PROGRAMS": "relay,api"}
    port = single.env["MILLRACE_PORT"]

    def healthy() -> bool:
        assert single.alive, single.tail()
        return millrace("healthy", port, env=single.env).code == 0

    single.start()
    wait_until(healthy, timeout_s=120, what="single to be ready")
    for process in Path("/proc").glob("[0-9]*"):
        _kill_if_of(process, tmp_path / "data")
    single.kill()
    wait_until(lambda: not leftovers(tmp_path / "data"), timeout_s=30, what="everything to be gone")
    assert millrace("healthy", port, env=single.env).code == 1
    single.start()
    wait_until(healthy, timeout_s=120, what="single to be ready again")
    single.term()
    assert single.wait(60) == 0, single.tail()
    assert leftovers(tmp_path / "data") == []
    told = _lines(single)
    assert {line["program"] for line in told if "program" in line} == {"redis", "api", "relay"}
    assert {line["role"] for line in told} == {"minder", "api", "relay"}


def _kill_if_of(process: Path, folder: Path) -> None:
    try:
        if f"MILLRACE_DATA_DIR={folder}\0".encode() in (process / "environ").read_bytes() + b"\0":
            os.kill(int(process.name), 9)
    except OSError:
        return


@pytest.mark.journey
@pytest.mark.timeout(120)
def test_what_cannot_start_is_the_last_line(single: Process, tmp_path: Path, redis_url: str) -> None:
    single.env |= {"MILLRACE_PROGRAMS": "worker", "MILLRACE_MODULES": "nosuchmodule", "MILLRACE_REDIS_URL": redis_url}
    single.start()
    assert single.wait(100) == 1, single.tail()
    last = json.loads(single.log.read_text().splitlines()[-1])
    assert "worker_00 does not stay up: " in last["event"]
    assert "MILLRACE_MODULES" in last["event"]
    assert leftovers(tmp_path / "data") == []


def test_a_wrong_setting_is_said_before_anything_starts(single: Process) -> None:
    ran = millrace("single", env=single.env | {"MILLRACE_PROGRAMS": "api,web"}, cwd=single.cwd)
    assert ran.code == 2
    assert "MILLRACE_PROGRAMS" in ran.err


def test_the_last_line_of_a_program_is_the_reason(tmp_path: Path) -> None:
    minder = Minder("json", str(tmp_path / "none.sock"), tmp_path / "fault", ["api"])
    head = "processname:api groupname:api pid:1 channel:stdout"
    minder.hear("PROCESS_LOG_STDOUT", head + "\nfirst\nmillrace api: it is wrong\n\n")
    minder.hear("PROCESS_LOG_STDOUT", head + "\nWorker with PID 2 exited\n")
    assert minder.last_lines == {"api": "millrace api: it is wrong"}
    minder.hear("PROCESS_STATE_EXITED", "processname:api groupname:api from_state:RUNNING expected:0 pid:1")
    assert not (tmp_path / "fault").exists(), "what crashed is started again"


def test_a_redis_answers_only_when_it_takes_commands(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", password="a secret of the test")
    conf = tmp_path / "redis.conf"
    conf.write_text(f"bind 127.0.0.1\nport {server.port}\nrequirepass wrong\n")
    assert not redis_answers(conf)
    server.password = "right"
    server.process.command[-1] = "right"
    server.start()
    try:
        assert not redis_answers(conf)
        conf.write_text(conf.read_text().replace("wrong", "right"))
        assert redis_answers(conf)
    finally:
        server.stop()
