"""Programs that no package brings: named by MILLRACE_TEST_<NAME>, on PATH, or next to the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.services import find_program, missing

BESIDE = Path(__file__).parents[3] / "shared"


def look_for(name: str) -> Path | None:
    """The program, unpacked where it lies packed."""
    path = find_program(name)
    if path is None and (BESIDE / "bin" / f"{name}.xz").exists():
        return Path(subprocess.check_output([str(BESIDE / "bin" / "run-xz"), "--path", name], text=True).strip())
    return path


def shared_program(name: str) -> Path:
    """Return the server program; where it is missing, the test is skipped, and fails in CI."""
    path = look_for(name)
    if path is not None:
        return path
    missing(name, f"set MILLRACE_TEST_{name.upper().replace('-', '_')} to the program")


if __name__ == "__main__":
    program = look_for(sys.argv[1])
    if program is None:
        sys.exit(1)
    print(program)
