"""The container engine as this smoke test uses it: commands, a published port, and an end that leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.http import Client, HTTPError, client
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until

OWN = Path(__file__).parent / "own"
BASE_NAME = "millrace-base:bookworm"
STANDIN = "millrace-standin"
START_S = 180.0

# Run inside: what an application does beside its own rows.
_ENQUEUE = """
import sys
from app.core.db import database
from app.jobs.enqueue import enqueue
from smoke_kinds import Steps
seconds, count = float(sys.argv[1]), int(sys.argv[2])
ids = database().transaction(lambda s: [enqueue(s, Steps(seconds=seconds), tenant="default").id for _ in range(count)])
print(*ids)
"""
_ROWS = """
import json, sys
import sqlalchemy as sa
from app.core.db import database
from app.jobs.models import AttemptRow, JobRow
def rows(session):
    ended = session.execute(sa.select(AttemptRow.job_id, AttemptRow.outcome).order_by(AttemptRow.fence)).all()
    jobs = session.scalars(sa.select(JobRow).where(JobRow.kind == "smoke.steps"))
    return [[j.id, j.state, j.tries, j.crashes, [o for i, o in ended if i == j.id]] for j in jobs]
print(json.dumps(database().read(rows)))
"""


def missing() -> str | None:
    """Why no smoke test can run here; None where one can."""
    if shutil.which("docker") is None:
        return "no container engine is installed here"
    if run("docker", "info", check=False).returncode != 0:
        return "the container engine does not answer"
    return None


def run(*command: str, env: Mapping[str, str] | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command's end; raises AssertionError with what it said where it failed."""
    ended = subprocess.run(
        command, env={**os.environ, **(env or {})}, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 or not check, f"{' '.join(command[:6])}…: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    return ended


def has_image(name: str) -> bool:
    return run("docker", "image", "inspect", name, check=False).returncode == 0


def compose_words() -> list[str]:
    """Compose as the engine's plug-in, or the older program of its own."""
    if run("docker", "compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"]


class Inside(ABC):
    """One running container in which our command line works, and the api's published port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._client: Client | None = None

    @abstractmethod
    def exec(self, *words: str) -> str:
        """What the command said, run in the container."""

    @property
    def api(self) -> Client:
        if self._client is None:
            self._client = client(10, base_url=f"http://127.0.0.1:{self.port}")
        return self._client

    def is_ready(self) -> bool:
        try:
            return self.api.get("/readyz").is_success
        except HTTPError:
            return False

    def wait_ready(self) -> None:
        wait_until(self.is_ready, timeout_s=START_S, what="the api to be ready")

    def enqueue(self, seconds: float, count: int) -> list[str]:
        return self.exec("python", "-c", _ENQUEUE, str(seconds), str(count)).split()

    def rows(self) -> list[tuple[str, str, int, int, list[str]]]:
        """(id, state, tries, crashes, outcomes) of each job."""
        found: Any = json.loads(self.exec("python", "-c", _ROWS))
        return [tuple(row) for row in found]

    def wait_state(self, job_id: str, *states: str, timeout_s: float = 60) -> None:
        def there() -> bool:
            return any(row[0] == job_id and row[1] in states for row in self.rows())

        wait_until(there, timeout_s=timeout_s, what=f"a job to be {' or '.join(states)}")

    def wait_all(self, job_ids: list[str], timeout_s: float = 120) -> list[tuple[str, str, int, int, list[str]]]:
        """The rows of these jobs, once all have ended."""

        def ended() -> list[tuple[str, str, int, int, list[str]]]:
            rows = [row for row in self.rows() if row[0] in job_ids]
            done = all(row[1] in ("succeeded", "failed", "cancelled") for row in rows)
            return rows if done and len(rows) == len(job_ids) else []

        return wait_until(ended, timeout_s=timeout_s, what=f"{len(job_ids)} jobs to end")

    def upload(self, word: str) -> None:
        """Send a file, which the api stores and a worker reads; return when a search finds it."""
        rows = f"animal,place\\n{word},Perth\\n"
        self.exec("sh", "-c", f"printf '{rows}' > /tmp/{word}.csv && millrace index /tmp/{word}.csv --wait --json")
        wait_until(lambda: self.search_finds(word), timeout_s=60, what="the uploaded file to be found")
        findings = {line["check"]: line for line in json.loads(self.exec("millrace", "doctor", "--json"))}
        assert findings["uploads"]["state"] == "ok", findings["uploads"]

    def search_finds(self, word: str) -> bool:
        """Whether it is found now; an index that is still being built finds nothing."""
        try:
            return bool(json.loads(self.exec("millrace", "search", word, "--mode", "keyword", "--json"))["total"])
        except AssertionError:
            return False
