"""A real changedetection.io of a test, on a datastore that names its API key and watches nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core import http
from tests.support.processes import Process, free_port, running
from tests.support.services import find_program, missing
from tests.support.waiting import wait_until

VERSION = "0.60.10"
KEY = "0123456789abcdef0123456789abcdef"
# A schema newer than all keeps it from adding the two sample watches of a fresh datastore.
SEED: dict[str, Any] = {
    "app_guid": "tests",
    "watching": {},
    "settings": {"application": {"api_access_token": KEY, "api_access_token_enabled": True, "schema_version": 9999}},
}
ENVIRONMENT = {
    "ALLOW_IANA_RESTRICTED_ADDRESSES": "true",
    "DISABLE_VERSION_CHECK": "yes",
    "LLM_FEATURES_DISABLED": "true",
    "MINIMUM_SECONDS_RECHECK_TIME": "0",
    "REQUESTS_RETRY_MAX_COUNT": "1",
}


def program() -> Path:
    """Named by MILLRACE_TEST_CHANGEDETECTION, or what `make changedetection` has brought."""
    path = find_program("changedetection")
    brought = Path(__file__).parents[2] / ".services" / "changedetection" / "bin" / "changedetection.io"
    if path is None and not brought.exists():
        missing("changedetection.io", "make changedetection")
    return path or brought


class ChangeDetectionServer:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "changedetection.json").write_text(json.dumps(SEED))
        command = [str(program()), "-h", "127.0.0.1", "-p", str(self.port), "-d", str(folder)]
        # Nothing of this desk's, least of all a proxy for what it fetches from us.
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **ENVIRONMENT}
        self.process = Process("changedetection", command, log=folder / "changedetection.log", env=env, cwd=folder)

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which our processes reach it."""
        return {"changedetection_url": self.url, "changedetection_api_key": KEY}

    def start(self) -> None:
        self.process.start()
        wait_until(self.answers, timeout_s=60, what=f"changedetection.io on port {self.port}")

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/systeminfo").is_success
        except http.HTTPError:
            assert self.process.alive, self.process.tail()
            return False

    def ask(self, method: str, path: str, **options: Any) -> http.Response:
        """A call of its API as it is, past our client."""
        with http.client(10, headers={"x-api-key": KEY}) as client:
            return client.request(method, f"{self.url}/api/v1{path}", **options)

    def clear(self) -> None:
        """Forget all watches and tags."""
        for kind, singular in (("watch", "watch"), ("tags", "tag")):
            for uuid in self.ask("GET", f"/{kind}").json():
                self.ask("DELETE", f"/{singular}/{uuid}").raise_for_status()

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()


@pytest.fixture(scope="session")
def shared_changedetection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChangeDetectionServer]:
    """One server a test process; ask for `changedetection_server`, which empties it first."""
    with running(ChangeDetectionServer(tmp_path_factory.mktemp("changedetection"))) as server:
        yield server


@pytest.fixture
def changedetection_server(shared_changedetection: ChangeDetectionServer) -> Iterator[ChangeDetectionServer]:
    """An instance for this test alone, without watches before and after it."""
    shared_changedetection.clear()
    yield shared_changedetection
    shared_changedetection.clear()
