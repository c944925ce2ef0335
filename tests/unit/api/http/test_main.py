"""The api process: what it loads, what it refuses, and how it stops."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.core.errors import ConfigError
from app.jobs.models import JobRow
from app.main import create_app
from tests.support.databases import SettingsEnv
from tests.support.stack import API_SECRET, REPOSITORY, Stack
from tests.support.waiting import wait_until
from tests.unit.api.streams.following import parse

IMPORTS = """
import sys, app.main
app.main.create_app()
print([name for name in sys.modules if name.split(".")[0] in ("actors", "dramatiq", "periodiq")])
"""


def python(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    settings = {"PATH": "/usr/bin:/bin", **{f"MILLRACE_{name.upper()}": value for name, value in env.items()}}
    return subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=REPOSITORY, env=settings)


def test_the_application_loads_no_actor() -> None:
    assert python("-c", IMPORTS, api_secret=API_SECRET).stdout.strip() == "[]"


@pytest.mark.parametrize("role", ["worker", "scheduler", "relay"])
def test_a_process_of_another_role_serves_no_api(settings_env: SettingsEnv, role: str) -> None:
    settings_env(role=role)
    with pytest.raises(ConfigError, match=role):
        create_app()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"api_secret": ""}, "MILLRACE_API_SECRET"),
        ({"api_secret": "short"}, "MILLRACE_API_SECRET"),
        ({"role": "worker"}, "MILLRACE_ROLE"),
        ({"database_url": "oracle://x"}, "MILLRACE_DATABASE_URL"),
        ({"redis_url": "http://x"}, "MILLRACE_REDIS_URL"),
        ({"max_body_bytes": "many"}, "MILLRACE_MAX_BODY_BYTES"),
        ({"modules": "no.such.module"}, "MILLRACE_MODULES"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(wrong: dict[str, str], named: str, tmp_path: object) -> None:
    """Also for who starts uvicorn without our command."""
    env = {"api_secret": API_SECRET, "data_dir": f"{tmp_path}/data", "log_level": "error", **wrong}
    ended = python("-m", "uvicorn", "app.main:app", "--port", "1", **env)
    assert ended.returncode == 2, ended.stderr
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.journey
def test_sigterm_ends_open_streams_and_waiting_and_the_process(stack: Stack, errand: Callable[..., JobRow]) -> None:
    """Uvicorn itself would wait for the browsers to go."""
    stack.start(workers=0, relay=False)
    job_id = stack.post("/api/documents", {"text": "some text"}).json()["id"]
    assert stack.api is not None
    address = f"{stack.url}/api/jobs/{job_id}?wait=60"
    headers = {"Authorization": f"Bearer {API_SECRET}"}
    with (
        ThreadPoolExecutor(1) as pool,
        stack.client.stream("GET", f"/api/jobs/{job_id}/events") as response,
    ):
        waiting = pool.submit(httpx.get, address, headers=headers, timeout=60, trust_env=False)
        wait_until(lambda: stack.client.get("/health").json()["streams"] == 2, what="both to be followed")
        lines = response.iter_lines()
        assert next(parse(lines)).data["state"] == "queued"
        began = time.monotonic()
        stack.api.term()
        assert [line for line in lines if line][-1].startswith("retry: ")
        assert stack.api.wait(10) == 0
        assert waiting.result(5).json()["state"] == "queued"
    assert time.monotonic() - began < 5
