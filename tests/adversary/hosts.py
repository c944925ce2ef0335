"""Hosts of sandboxes for tests of attacks: as root, as root without capabilities, as another user."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.sandbox_rig import ROOT

HOSTS = ("root", "bare", "user")
NO_ONE = 54321
SECRET = "s3cret-of-the-host"
DENIED = {"EPERM", "EACCES"}


def run_all(host: str, *calls: dict[str, Any]) -> list[Any]:
    """Run these calls in sandboxes of such a host; return their outcomes."""
    user = {"user": NO_ONE, "group": NO_ONE, "extra_groups": []} if host == "user" and os.geteuid() == 0 else {}
    python = python_for_all()
    ended = subprocess.run(
        [python, "-m", "tests.adversary.host", host],
        cwd=ROOT,
        input=json.dumps(calls),
        env={
            "PATH": os.environ["PATH"],
            "MILLRACE_API_SECRET": SECRET,
            "ODD_NAME": SECRET,
            "TMPDIR": common_folder(),
            "PYTHONPATH": os.pathsep.join((str(ROOT), sysconfig.get_path("purelib"))),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        **user,  # type: ignore[call-overload]
    )
    assert ended.returncode == 0, ended.stderr
    outcomes: list[Any] = json.loads(ended.stdout)
    return outcomes


@lru_cache
def python_for_all() -> str:
    """Return a Python of this version that every user may run; ours may lie in a home."""
    for path in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin") or ""):
        real = Path(path).resolve()
        same = f"python{sys.version_info.major}.{sys.version_info.minor}" == real.name
        if same and all(folder.stat().st_mode & stat.S_IXOTH for folder in (real, *real.parents)):
            return path
    pytest.skip("needs a Python of this version that other users may run")


@lru_cache
def common_folder() -> str:
    """Return a folder that any user may pass and write, as /tmp is."""
    folder = tempfile.mkdtemp(prefix="adversary-")
    os.chmod(folder, 0o1777)
    return folder
