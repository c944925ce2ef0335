"""`millrace ...` as a person runs it: a separate process, its exit code and what it printed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.support import warm
from tests.support.stack import REPOSITORY


class Ran(NamedTuple):
    """Exit code and output of a command that has ended."""

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
    return Running(*words, env=env, cwd=cwd).end(timeout_s)


class Running:
    """The command, while it runs."""

    def __init__(self, *words: str, env: Mapping[str, str], cwd: Path | None = None) -> None:
        self.words = words
        # A desk's own profiles must not steer the tests.
        environment = {"MILLRACE_PROFILES": os.devnull, **env, "PYTHONPATH": str(REPOSITORY), "COLUMNS": warm.WIDE}
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 - closed by end()
        self.process: subprocess.Popen[bytes] | warm.Warm
        if warm.fits(environment):
            to = {"stdout": self._out.fileno(), "stderr": self._err.fileno()}
            self.process = warm.start(words, env=environment, cwd=cwd or Path.cwd(), **to)
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *words],
                env=environment,
                cwd=cwd or Path.cwd(),
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self.process.poll()

    def kill(self) -> int:
        """Send SIGKILL to it and its group and return its exit code; its output is lost."""
        with self._out, self._err:
            return self._kill()

    def _kill(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(10)

    def end(self, timeout_s: float = 50) -> Ran:
        """Wait for its end and return its exit code and output."""
        with self._out, self._err:
            try:
                code = self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._kill()
                output, words = f"{self._read(self._out)}\n{self._read(self._err)}", " ".join(self.words)
                raise AssertionError(f"millrace {words} still ran after {timeout_s:g} s\n{output}") from None
            return Ran(code, self._read(self._out), self._read(self._err))

    @staticmethod
    def _read(file: IO[bytes]) -> str:
        file.seek(0)
        return file.read().decode()
