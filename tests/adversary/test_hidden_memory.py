"""No process of the system shows its secrets to another process of the same user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.db import Database
from app.core.migrate import upgrade
from tests.adversary.hosts import NO_ONE, SECRET, common_folder
from tests.support.processes import Process, free_port
from tests.support.sandbox_rig import ROOT, on_linux

# Our Python may lie in a home that this user could not read.
_READS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
_AS_NO_ONE = ("setpriv", f"--reuid={NO_ONE}", f"--regid={NO_ONE}", "--clear-groups", *_READS)


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("word", ["api", "relay", "scheduler", "worker"])
def test_the_memory_of_each_process_is_closed(word: str, redis_url: str, tmp_path: Path) -> None:
    """The kernel gives the files in /proc of a hidden process to root, even if another user runs it."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to run them as another user")
    port = free_port()
    process = _start(word, port, redis_url, tmp_path)
    open_process = subprocess.Popen([*_AS_NO_ONE, "sleep", "600"])
    try:
        process.wait_for_port(port, 60)
        assert Path(f"/proc/{open_process.pid}/environ").stat().st_uid == NO_ONE
        pids = list(_with_secret(process.pid))
        assert len(pids) == (2 if word == "worker" else 1)
        for pid in pids:
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0, Path(f"/proc/{pid}/cmdline").read_text()
    finally:
        process.stop()
        open_process.kill()
        open_process.wait()


def _start(word: str, port: int, redis_url: str, folder: Path) -> Process:
    data = Path(common_folder()) / f"data-{word}"
    data.mkdir()
    database = Database(f"sqlite:///{data}/millrace.db")
    upgrade(database)
    database.close()
    for path in (data, *data.iterdir()):
        os.chown(path, NO_ONE, NO_ONE)
    environment = {
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((str(ROOT), sysconfig.get_path("purelib"))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MILLRACE_API_SECRET": "0123456789abcdef" + SECRET,
        "MILLRACE_DATA_DIR": str(data),
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_PORT": str(port),
        "MILLRACE_HEALTH_PORT": str(port),
    }
    process = Process(
        word, [*_AS_NO_ONE, sys.executable, "-m", "app", word], log=folder / "log", env=environment, cwd=data
    )
    process.start()
    return process


def _with_secret(ancestor: int) -> Iterator[int]:
    """Yield the process and those below it that hold the secret in their environment."""
    todo = [ancestor]
    while todo:
        pid = todo.pop()
        todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        if SECRET in Path(f"/proc/{pid}/environ").read_text():
            yield pid
