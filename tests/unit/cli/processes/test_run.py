"""A process starts, refuses in one sentence, or waits for a service; exit code 2 means that waiting does not help."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.command import millrace
from tests.support.databases import make_stack_env
from tests.support.processes import Process, free_port
from tests.support.services import PostgresServer, RedisServer
from tests.support.stack import API_SECRET, Stack
from tests.support.waiting import wait_until

PROCESSES = ["api", "worker", "scheduler", "relay"]


@pytest.fixture
def env(sqlite_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return make_stack_env(sqlite_url, redis_url, tmp_path)


@pytest.mark.parametrize("word", PROCESSES)
@pytest.mark.parametrize("setting", ["MILLRACE_DATABASE_URL", "MILLRACE_REDIS_URL"])
def test_a_wrong_url_ends_every_process_with_one_sentence(word: str, setting: str, env: dict[str, str]) -> None:
    _refused(word, setting, "nonsense", env)


@pytest.mark.parametrize(
    ("word", "setting", "value"),
    [
        ("api", "MILLRACE_DATABASE_URL", "mysql://root@127.0.0.1/x"),
        ("worker", "MILLRACE_WORKER_THREADS", "many"),
        ("worker", "MILLRACE_ROLE", "api"),
        ("api", "MILLRACE_ROLE", "worker"),
        ("worker", "MILLRACE_MODULES", "nosuchmodule"),
    ],
)
def test_a_wrong_setting_ends_a_process(word: str, setting: str, value: str, env: dict[str, str]) -> None:
    _refused(word, setting, value, env)


def _refused(word: str, setting: str, value: str, env: dict[str, str]) -> None:
    ran = millrace(word, env=env | {setting: value})
    assert ran.code == 2, ran
    lines = [line for line in ran.err.splitlines() if line.startswith("millrace ")]
    assert len(lines) == 1, ran.err
    assert setting in lines[0]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("word", PROCESSES)
def test_a_wrong_redis_password_ends_every_process(word: str, sqlite_url: str, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "closed", password="right")
    server.start()
    try:
        url = f"redis://:wrong@127.0.0.1:{server.port}/0"
        ran = millrace(word, env=make_stack_env(sqlite_url, url, tmp_path))
    finally:
        server.process.stop()
    assert ran.code == 2, ran
    assert "MILLRACE_REDIS_URL" in ran.err
    assert "wrong@" not in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("word", PROCESSES)
def test_a_wrong_database_password_ends_every_process(
    word: str, shared_postgres: PostgresServer, redis_url: str, tmp_path: Path
) -> None:
    url = f"postgresql://millrace:wr0ng@127.0.0.1:{shared_postgres.port}/postgres"
    ran = millrace(word, env=make_stack_env(url, redis_url, tmp_path))
    assert ran.code == 2, ran
    assert "MILLRACE_DATABASE_URL" in ran.err
    assert "wr0ng" not in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("secret", "fault"), [("", "missing"), ("short", "shorter"), ("a" * 40, "guess")])
def test_an_api_without_a_good_secret_does_not_start(secret: str, fault: str, env: dict[str, str]) -> None:
    ran = millrace("api", env=env | {"MILLRACE_API_SECRET": secret})
    assert ran.code == 2
    assert "MILLRACE_API_SECRET" in ran.err
    assert fault in ran.err


def test_all_faults_are_named_at_once(env: dict[str, str]) -> None:
    ran = millrace("api", env=env | {"MILLRACE_PORT": "99999999", "MILLRACE_GRACE_S": "soon"})
    assert ran.code == 2
    assert "MILLRACE_PORT" in ran.err
    assert "MILLRACE_GRACE_S" in ran.err


def test_a_secret_may_come_from_a_file(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(API_SECRET + "\n")
    del env["MILLRACE_API_SECRET"]
    rows = millrace("config", "show", "--json", env=env | {"MILLRACE_API_SECRET_FILE": str(tmp_path / "secret")}).json
    row = next(row for row in rows if row["name"] == "MILLRACE_API_SECRET")
    assert row["value"] == "(set)"
    assert row["source"] == f"file {tmp_path / 'secret'}"


def _is_waiting(process: Process) -> bool:
    log = process.log.read_text()
    return "not_reachable" in log or "waits" in log


def test_processes_wait_for_redis_and_sql(env: dict[str, str], tmp_path: Path) -> None:
    """Redis and SQL are down at the start; no process exits, and /readyz names both."""
    closed_port = free_port()
    env |= {
        "MILLRACE_REDIS_URL": f"redis://127.0.0.1:{closed_port}/0",
        "MILLRACE_DATABASE_URL": f"postgresql://millrace@127.0.0.1:{closed_port}/x",
    }
    stack = Stack(tmp_path / "logs", env, API_SECRET, is_warm=True)
    try:
        stack.start_api()
        processes = [stack.add_worker(wait=False), stack.add_relay(wait=False), stack.add_scheduler()]
        ready = wait_until(lambda: stack.client.get("/readyz", timeout=10), what="/readyz")
        assert ready.status_code == 503
        assert {"sql", "redis"} <= set(ready.text.replace('"', " ").split()) or "redis" in ready.text
        for process in processes:
            wait_until(partial(_is_waiting, process), timeout_s=40, what=f"{process.name} to wait")
        assert all(process.alive for process in processes), stack.logs()
        assert "Traceback" not in stack.logs(200), stack.logs(200)
    finally:
        stack.end()


def test_own_modules_are_found_in_the_working_directory(env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "own_kinds.py").write_text("raise SystemExit(7)\n")
    for word in ("api", "worker"):
        script = str(Path(sys.executable).with_name("millrace"))
        command = Process(
            word, [script, word], log=tmp_path / word, env=env | {"MILLRACE_MODULES": "own_kinds"}, cwd=folder
        )
        command.start()
        assert command.wait(40) == 2, command.tail()
        assert "MILLRACE_MODULES: own_kinds cannot be imported: SystemExit: 7" in command.tail()
