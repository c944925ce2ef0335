"""Programs that no package brings: named by MILLRACE_TEST_<NAME>, on PATH, or beside the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.services import find_program, missing

BESIDE = Path(__file__).parents[3] / "shared"


def shared_program(name: str) -> Path:
    """The server program; the test skips where there is none, and fails in CI."""
    found = find_program(name)
    if found is not None:
        return found
    unpack = BESIDE / "bin" / "run-xz"
    if (BESIDE / "bin" / f"{name}.xz").exists():
        return Path(subprocess.check_output([str(unpack), "--path", name], text=True).strip())
    missing(name, f"set MILLRACE_TEST_{name.upper().replace('-', '_')} to the program")
