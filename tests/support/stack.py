"""The whole system as real processes: an api, workers, a relay, a scheduler on ports and a database of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.http import Client, HTTPError, Response, client
from tests.support.processes import Process, free_port, listens
from tests.support.waiting import wait_until

API_SECRET = "tests-only-4f1d9c2ab7e84d06a35be7c1"
REPOSITORY = Path(__file__).resolve().parents[2]


class Stack:
    """Start what a test needs, hurt it, look at it; `end()` leaves nothing behind.

    `env` goes to every process started after it was set, so a test may change a setting between two of them.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], secret: str, *, is_warm: bool = False) -> None:
        """`is_warm`: how they start, and what they weigh, is not the subject (tests/support/warm.py)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.secret = secret
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {**env, "MILLRACE_PORT": str(self.port), "MILLRACE_HOST": "127.0.0.1"}
        self.cwd = REPOSITORY
        self.is_warm = is_warm
        self.processes: list[Process] = []
        self.workers: list[Process] = []
        self.relays: list[Process] = []
        self.schedulers: list[Process] = []
        self.api: Process | None = None
        self._client: Client | None = None
        self._health_ports: dict[str, int] = {}

    @property
    def client(self) -> Client:
        """Talks to the api with the secret."""
        if self._client is None:
            headers = {"Authorization": f"Bearer {self.secret}"}
            self._client = client(30, base_url=self.url, headers=headers)
        return self._client

    def start(self, *, workers: int = 1, relay: bool = True, api: bool = True, scheduler: bool = False) -> Stack:
        """The usual set, ready to take work."""
        if api:
            self.start_api(wait=False)
        for _ in range(workers):
            self.add_worker(wait=False)
        if relay:
            self.add_relay(wait=False)
        if scheduler:
            self.add_scheduler()
        self.wait_ready()
        return self

    def _spawn(self, name: str, *words: str, env: Mapping[str, str] | None = None) -> Process:
        command = [sys.executable, "-m", "app", *words]
        log = self.folder / f"{name}.log"
        is_warm = self.is_warm and self.cwd == REPOSITORY  # another tree is another program
        process = Process(name, command, log=log, env={**self.env, **(env or {})}, cwd=self.cwd, is_warm=is_warm)
        self.processes.append(process)
        process.start()
        return process

    def start_api(self, *, wait: bool = True) -> Process:
        self.api = self._spawn("api", "api")
        if wait:
            self.wait_for_api()
        return self.api

    def _with_health(self, name: str, word: str, options: tuple[str, ...], wait: bool) -> Process:
        port = self._health_ports[name] = free_port()
        process = self._spawn(name, word, *options, env={"MILLRACE_HEALTH_PORT": str(port)})
        if wait:
            process.wait_for_port(port, timeout_s=30)
        return process

    def add_worker(self, *options: str, wait: bool = True) -> Process:
        """One more worker program (`options` go to dramatiq, such as `-Q bulk`)."""
        worker = self._with_health(f"worker-{len(self.workers) + 1}", "worker", options, wait)
        self.workers.append(worker)
        return worker

    def add_relay(self, *, wait: bool = True) -> Process:
        relay = self._with_health(f"relay-{len(self.relays) + 1}", "relay", (), wait)
        self.relays.append(relay)
        return relay

    def add_scheduler(self) -> Process:
        scheduler = self._with_health(f"scheduler-{len(self.schedulers) + 1}", "scheduler", (), False)
        self.schedulers.append(scheduler)
        return scheduler

    def health_port(self, process: Process) -> int:
        return self._health_ports[process.name]

    def wait_for_api(self, timeout_s: float = 40.0) -> None:
        """Until the api answers; /livez only, since a test may have taken Redis away on purpose."""
        assert self.api is not None
        api = self.api

        def answers() -> bool:
            assert api.alive, f"the api ended at its start\n{api.tail()}"
            try:
                return self.client.get("/livez", timeout=2).status_code == 200
            except HTTPError:
                return False

        wait_until(answers, timeout_s=timeout_s, what="the api to answer /livez")

    def wait_ready(self, timeout_s: float = 40.0) -> None:
        """Until every process that was started serves."""
        if self.api is not None and self.api.alive:
            self.wait_for_api(timeout_s)
        for process in [*self.workers, *self.relays]:
            if process.alive or process.exit_code is not None:
                process.wait_for_port(self._health_ports[process.name], timeout_s)

    def listening(self, process: Process) -> bool:
        return listens(self._health_ports[process.name])

    # What tests of the main job say most often.

    def post(self, path: str, body: Any, **options: Any) -> Response:
        return self.client.post(path, json=body, **options)

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/jobs/{job_id}")
        answer.raise_for_status()
        job: dict[str, Any] = answer.json()
        return job

    def wait_for_job(self, job_id: str, *states: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """The job, once it is in one of `states` (the final ones when none is named)."""
        expected = set(states) or {"succeeded", "failed", "cancelled"}

        def there() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in expected else None

        job_view = wait_until(there, timeout_s=timeout_s, what=f"job {job_id} to be {' or '.join(sorted(expected))}")
        assert job_view is not None
        return job_view

    def logs(self, lines: int = 60) -> str:
        return "\n\n".join(process.tail(lines) for process in self.processes)

    def end(self) -> None:
        """Everything that was started is gone afterwards, with its children."""
        if self._client is not None:
            self._client.close()
            self._client = None
        for process in self.processes:
            process.wake()
            process.term()
        for process in reversed(self.processes):
            process.stop(timeout_s=15)


def verify_index(stack: Stack) -> dict[str, Any]:
    """Run `millrace index verify` and return its report."""
    env = {**stack.env, "MILLRACE_API_SECRET": stack.secret}
    command = [sys.executable, "-m", "app", "index", "verify", "--json"]
    ran = subprocess.run(command, env=env, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report
