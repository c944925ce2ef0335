"""Row 18: a fresh clone, its first command, its first search hit; the packages come from a warm cache.

python -m tests.bench.fresh_start
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.table import Row, markdown
from tests.support.processes import free_port
from tests.support.stack import REPOSITORY

MAX_DURATION_S = 300


def first_hit_s() -> float:
    """Seconds from `make run` in a new clone of HEAD to the line that shows hits."""
    with TemporaryDirectory(prefix="millrace-fresh-") as name:
        clone = Path(name) / "millrace"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MILLRACE_", "VIRTUAL_ENV"))}
        env |= {"MILLRACE_PORT": str(free_port())}
        began = time.monotonic()
        run = subprocess.Popen(
            ["make", "run"],
            cwd=clone,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert run.stdout is not None
        lines, took = [], None
        try:
            for line in run.stdout:
                lines.append(line)
                if line.startswith("1  "):
                    took = time.monotonic() - began
                    break
                if time.monotonic() - began > MAX_DURATION_S:
                    break
        finally:
            os.killpg(run.pid, signal.SIGINT)
            run.wait(60)
        assert took is not None, "".join(lines[-40:])
        return took


def rows() -> list[Row]:
    took = first_hit_s()
    return [
        Row(
            "18",
            "fresh clone: first command → first hit",
            f"{took:.0f} s",
            "–",
            "≤ 90 s, warm package cache",
            took <= 90,
        )
    ]


if __name__ == "__main__":
    print(markdown(rows()))
