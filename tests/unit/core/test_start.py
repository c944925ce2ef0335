"""Start of each process with wrong settings, and with services that are not running yet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.core.http import client
from tests.support.command import Running
from tests.support.databases import make_stack_env
from tests.support.processes import Process, free_port, running
from tests.support.services import PostgresServer, RedisServer
from tests.support.stack import API_SECRET, REPOSITORY, Stack
from tests.support.waiting import wait_until

ROLES = ("api", "worker", "relay")
pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.fixture
def env(sqlite_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that would start."""
    return make_stack_env(sqlite_url, redis_url, tmp_path) | {"MILLRACE_PORT": "0"}


@pytest.fixture
def locked_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that wants a password."""
    with running(RedisServer(tmp_path / "locked", password="open-sesame")) as server:
        yield server


def _ends(env: dict[str, str], *roles: str) -> dict[str, tuple[int, str]]:
    """Exit code and output of each process, all started at once."""
    started = {role: Running(role, env=env | {"MILLRACE_PORT": str(free_port())}) for role in roles or ROLES}
    ended = {role: process.end(40) for role, process in started.items()}
    return {role: (ran.code, ran.out + ran.err) for role, ran in ended.items()}


def _refused(env: dict[str, str], setting: str, *secrets: str) -> None:
    """Each process ends with exit code 2 and one sentence that names the setting and gives no secret away."""
    for role, (code, output) in _ends(env).items():
        sentences = [line for line in output.splitlines() if setting in line and line.startswith("millrace")]
        assert code == 2, f"{role}: {code}\n{output}"
        assert len(sentences) == 1, f"{role}\n{output}"
        assert "Traceback" not in output, f"{role}\n{output}"
        for secret in secrets:
            assert secret not in output, role


def test_wrong_settings_end_every_process_with_all_of_them_named(env: dict[str, str]) -> None:
    _refused(env | {"MILLRACE_WORKER_THREADS": "many", "MILLRACE_LOG_LEVEL": "loud"}, "MILLRACE_WORKER_THREADS")


def test_invalid_url_ends_every_process(env: dict[str, str]) -> None:
    _refused(env | {"MILLRACE_DATABASE_URL": "oracle://somewhere"}, "MILLRACE_DATABASE_URL")
    _refused(env | {"MILLRACE_REDIS_URL": "http://somewhere"}, "MILLRACE_REDIS_URL")


def test_a_wrong_redis_password_ends_every_process(env: dict[str, str], locked_redis: RedisServer) -> None:
    for secret in ("", ":not-this-one@"):
        url = f"redis://{secret}127.0.0.1:{locked_redis.port}/0"
        _refused(env | {"MILLRACE_REDIS_URL": url}, "MILLRACE_REDIS_URL", "not-this-one")


def test_a_wrong_database_password_or_name_ends_every_process(
    env: dict[str, str], shared_postgres: PostgresServer
) -> None:
    good = sa.make_url(shared_postgres.url_of("postgres"))
    for url in (good.set(password="not-this-one"), good.set(database="nowhere")):
        text = url.render_as_string(hide_password=False)
        _refused(env | {"MILLRACE_DATABASE_URL": text}, "MILLRACE_DATABASE_URL", "not-this-one")


def test_a_weak_secret_ends_the_api(env: dict[str, str]) -> None:
    code, output = _ends(env | {"MILLRACE_API_SECRET": "changeme"}, "api")["api"]
    assert code == 2
    assert "MILLRACE_API_SECRET is shorter than 32 characters" in output
    assert "changeme" not in output


def test_missing_module_ends_every_process(env: dict[str, str]) -> None:
    """Also the relay, where a job may end whose definition wants to hear of it."""
    for role, (code, output) in _ends(env | {"MILLRACE_MODULES": "no.such.module"}).items():
        assert (code, role) == (2, role), output
        assert "MILLRACE_MODULES names no" in output, role
        assert "Traceback" not in output, role


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_processes_wait_for_unreachable_services(env: dict[str, str], tmp_path: Path, database: str) -> None:
    """No process ends; a job that is enqueued before the services run is run once they do."""
    redis_server = RedisServer(tmp_path / "late")
    postgres = PostgresServer() if database == "postgresql" else None
    env["MILLRACE_REDIS_URL"] = redis_server.url
    if postgres is not None:
        env["MILLRACE_DATABASE_URL"] = postgres.url_of("postgres")
    stack = Stack(tmp_path / "logs", env, API_SECRET)
    try:
        stack.start_api(wait=False)
        stack.add_worker(wait=False)
        stack.add_relay(wait=False)
        wait_until(lambda: _waits(stack), timeout_s=30, what="all of them to wait")
        stack.wait_for_api()
        assert stack.client.get("/readyz").status_code == 503
        for process in (*stack.workers, *stack.relays):
            with client(base_url=f"http://127.0.0.1:{stack.health_port(process)}") as http:
                wait_until(lambda http=http: http.get("/readyz").status_code == 503, what="it to say so")  # type: ignore[misc]
                assert http.get("/livez").status_code == 200
        redis_server.start()
        if postgres is not None:
            postgres.start()
            migrated = subprocess.run(
                [sys.executable, "-m", "app", "migrate"], env=env, cwd=REPOSITORY, capture_output=True, check=False
            )
            assert migrated.returncode == 0, migrated.stderr
        wait_until(lambda: stack.client.get("/readyz").status_code == 200, timeout_s=30, what="the api to be ready")
        stack.wait_ready()
        assert all(process.alive for process in stack.processes)
        answer = stack.post("/api/documents", {"url": "https://example.com/late", "text": "It came late."})
        assert answer.status_code == 202, answer.text
        assert stack.wait_for_job(answer.json()["id"])["state"] == "succeeded"
        for process in stack.processes:
            process.term()
        assert [process.wait(20) for process in stack.processes] == [0, 0, 0]
    finally:
        print(stack.logs())
        stack.end()
        redis_server.process.stop()
        if postgres is not None:
            postgres.remove()


def _waits(stack: Stack) -> bool:
    """Return True if every process has reported a missing service and still runs."""
    processes: list[Process] = stack.processes
    for process in processes:
        assert process.alive, process.tail()
    text = [process.log.read_text() if process.log.exists() else "" for process in processes]
    return all(
        "waits" in output or "not_reach" in output or "unavailable" in output or "not heard" in output
        for output in text[1:]
    )
