"""Run a Python program of this environment whose memory and environment other processes cannot read.

    python -P -m app.cli.processes.hidden_program /path/to/dramatiq ARGUMENTS...

The protection of the process before ends with its execve, so it is set again here.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from app.core.process import hide_memory, leave_after

# Loads modules of users, whose threads must not keep it. The master of the workers loads none.
LEAVES = ("periodiq",)


def main() -> None:
    del sys.argv[0]
    hide_memory()
    if Path(sys.argv[0]).name in LEAVES:
        leave_after(_run)
    _run()


def _run() -> None:
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
