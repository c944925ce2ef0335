"""`millrace up`: a first result from one command, and no process remains when it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from app.core.db import database
from app.jobs.ledger.enqueue import enqueue
from app.jobs.models import JobRow
from tests.support.command import millrace
from tests.support.databases import SettingsEnv
from tests.support.kinds import Sleep
from tests.support.processes import Process, free_port, leftovers, listens
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Return an environment with no settings but a free port and a data folder."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return plain | {
        "MILLRACE_PORT": str(free_port()),
        "MILLRACE_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(REPOSITORY),
    }


def test_one_command_gives_a_first_result(env: dict[str, str], tmp_path: Path) -> None:
    ran = millrace("up", "--exit-after-demo", "--json", env=env, timeout_s=200)
    assert ran.code == 0, ran
    result = ran.json
    assert result["demo"]["pages"] >= 10
    assert result["demo"]["search"]["results"]
    assert leftovers(tmp_path / "data") == []
    secret = (tmp_path / "data" / ".env").read_text()
    assert "MILLRACE_API_SECRET=" in secret
    assert (tmp_path / "data" / ".env").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(env: dict[str, str], tmp_path: Path, number: int) -> None:
    process = Process("up", [sys.executable, "-m", "app", "up", "--no-demo"], log=tmp_path / "up.log", env=env)
    process.start()
    try:
        port = int(env["MILLRACE_PORT"])
        process.wait_for_port(port, timeout_s=120)
        wait_until(lambda: "Ctrl-C" in process.log.read_text(), timeout_s=60, what="up to be ready\n" + process.tail())
        process.signal(number)
        assert process.wait(60) == 0, process.tail()
        assert not listens(port)
        assert leftovers(tmp_path / "data") == []
    finally:
        process.stop()


def test_a_second_ctrl_c_does_not_wait_for_running_jobs(
    env: dict[str, str], tmp_path: Path, settings_env: SettingsEnv
) -> None:
    """The running job is handed back without counting a try, and continues at the next start."""
    env |= {"MILLRACE_MODULES": "tests.support.kinds", "MILLRACE_GRACE_S": "100"}
    process = Process("up", [sys.executable, "-m", "app", "up", "--no-demo"], log=tmp_path / "up.log", env=env)
    process.start()
    try:
        wait_until(lambda: "Ctrl-C" in process.log.read_text(), timeout_s=120, what="up to be ready\n" + process.tail())
        settings_env(data_dir=tmp_path / "data", modules="tests.support.kinds")
        job = database().transaction(enqueue, Sleep(seconds=90), tenant="default")
        wait_until(lambda: _state(job.id) == "running", timeout_s=60, what="the job to run")
        process.signal(signal.SIGINT)
        wait_until(lambda: "stopping" in process.log.read_text(), what="up to begin stopping")
        process.signal(signal.SIGINT)
        assert process.wait(60) == 0, process.tail()
        assert _state(job.id) == "queued"
        assert leftovers(tmp_path / "data") == []
    finally:
        process.stop()


def _state(job_id: str) -> str:
    row = database().read(lambda session: session.get(JobRow, job_id))
    assert row is not None
    return row.state


def test_a_kill_of_the_command_stops_everything(env: dict[str, str], tmp_path: Path) -> None:
    process = Process("up", [sys.executable, "-m", "app", "up", "--no-demo"], log=tmp_path / "up.log", env=env)
    process.start()
    process.wait_for_port(int(env["MILLRACE_PORT"]), timeout_s=120)
    process.kill()
    wait_until(lambda: not leftovers(tmp_path / "data"), timeout_s=60, what="everything to be gone")


def test_a_port_in_use_is_one_sentence(env: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["MILLRACE_PORT"])))
        taken.listen()
        ran = millrace("up", "--json", env=env)
    assert ran.code == 2
    assert env["MILLRACE_PORT"] in json.loads(ran.err)["error"]
