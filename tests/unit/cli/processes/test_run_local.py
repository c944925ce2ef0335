"""`millrace up`: a first result from one command, and no process remains when it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.db import database
from app.core.http import client
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


def _start_up(env: dict[str, str], log: Path) -> Process:
    process = Process("up", [sys.executable, "-m", "app", "up", "--no-demo"], log=log, env=env, cwd=REPOSITORY)
    process.start()
    wait_until(lambda: "Ctrl-C" in log.read_text(), timeout_s=120, what="up to be ready\n" + process.tail())
    return process


def _supervisord(process: Process) -> int:
    """Return the pid of the supervisord below `millrace up`."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"processes.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_the_printed_commands_and_metrics_reach_an_ipv6_installation(env: dict[str, str], tmp_path: Path) -> None:
    env |= {"MILLRACE_HOST": "::1"}
    process = _start_up(env, tmp_path / "up.log")
    try:
        text = process.log.read_text()
        [line] = [line for line in text.splitlines() if line.startswith("Jobs ")]
        command = line.partition("  or  ")[2]
        assert f"MILLRACE_PORT={env['MILLRACE_PORT']}" in command and "MILLRACE_HOST=::1" in command
        plain = {name: value for name, value in env.items() if not name.startswith("MILLRACE_")}
        ran = subprocess.run(command, shell=True, env=plain, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        with client(10, base_url=f"http://[::1]:{env['MILLRACE_PORT']}") as http:
            metrics = http.get("/metrics").text
    finally:
        process.term()
        assert process.wait(60) == 0, process.tail()
    roles = set(re.findall(r'millrace_process_info\{.*program="(\w+)",.*role="(\w+)"', metrics))
    assert roles == {("api", "api"), ("relay", "relay"), ("scheduler", "scheduler"), ("worker_00", "worker")}
    assert re.findall(r'^millrace_workers\{program="(\w+)"\} 1.0$', metrics, re.MULTILINE) == ["relay"]
    families = re.findall(r"^# TYPE (\S+)", metrics, re.MULTILINE)
    assert len(families) == len(set(families)), "each family is written once"


def test_a_kill_of_supervisord_ends_everything_and_the_next_start_works(env: dict[str, str], tmp_path: Path) -> None:
    process = _start_up(env, tmp_path / "up.log")
    os.kill(_supervisord(process), signal.SIGKILL)
    assert process.wait(60) == 1, process.tail()
    assert "supervisord ended" in process.log.read_text()
    assert leftovers(tmp_path / "data") == []
    process = _start_up(env, tmp_path / "again.log")
    try:
        # Together with `millrace up`, so that no process is left to clear up.
        supervisord = _supervisord(process)
        process.freeze()
        os.kill(supervisord, signal.SIGKILL)
        process.kill()
        process = _start_up(env, tmp_path / "third.log")
    finally:
        process.term()
        assert process.wait(60) == 0, process.tail()


def test_an_installed_package_starts_without_a_demo(env: dict[str, str], tmp_path: Path) -> None:
    """A wheel has no docs/: `up` says so and goes on; --demo is refused with the reason."""
    site = tmp_path / "site"
    for package in ("app", "actors"):
        shutil.copytree(REPOSITORY / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "supervisord.conf", site / "app" / "cli" / "processes")
    env |= {"PYTHONPATH": str(site)}
    words = [sys.executable, "-m", "app", "up", "--exit-after-demo"]
    ran = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "no demo" in ran.stderr
    refused = subprocess.run([*words, "--demo"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_one_sentence(env: dict[str, str], host: str) -> None:
    ran = millrace("up", "--json", env=env | {"MILLRACE_HOST": host})
    assert ran.code == 2
    assert "MILLRACE_HOST" in json.loads(ran.err)["error"]


def test_a_port_in_use_is_one_sentence(env: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["MILLRACE_PORT"])))
        taken.listen()
        ran = millrace("up", "--json", env=env)
    assert ran.code == 2
    assert env["MILLRACE_PORT"] in json.loads(ran.err)["error"]
