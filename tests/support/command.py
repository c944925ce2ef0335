"""`millrace ...` as a person runs it: a process of its own, its exit code and what it printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.stack import REPOSITORY


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Each line of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


def millrace(*words: str, env: Mapping[str, str], cwd: Path | None = None, timeout_s: float = 50) -> Ran:
    """Run it to its end; no terminal, so no bars."""
    command = [sys.executable, "-m", "app", *words]
    # A desk's own profiles must not steer the tests.
    environment = {"MILLRACE_PROFILES": os.devnull, **env, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
    with subprocess.Popen(
        command,
        env=environment,
        cwd=cwd or Path.cwd(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"millrace {' '.join(words)} still ran after {timeout_s:g} s\n{out}\n{err}") from None
    return Ran(process.returncode, out, err)
