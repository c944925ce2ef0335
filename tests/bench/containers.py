"""Row 17 in containers: ours and a stock one with the same program names, from the same image, in the same run.

    python -m tests.bench.containers [image]

The stock container runs supervisord over Redis with an append-only file, uvicorn with one route, and a Dramatiq worker
with as many threads as ours and one queue. Needs a container engine and the image (`make image`).
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from app.core.http import HTTPError, client
from app.jobs.queues import QUEUES
from tests.bench.idle import MAX_COMMANDS_PER_S, MAX_MEMORY_MIB, SETTLE_S, TALKERS, WATCH_S
from tests.bench.table import Row, markdown
from tests.smoke.engine import has_image, missing, run
from tests.support.processes import free_port
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until

IMAGE = "millrace:dev"
STOCK = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile=/tmp/supervisord.pid
[program:redis]
command=redis-server --port 6379 --appendonly yes --dir /data
[program:web]
command=python -m uvicorn hello:app --host 0.0.0.0 --port 52100
[program:worker]
command=python -m dramatiq stock -p 1 -t 32
"""


class Container:
    """One that is measured; `end` removes it and its volume."""

    def __init__(self, image: str, *words: str, command: tuple[str, ...] = ()) -> None:
        self.name = f"millrace-bench-{uuid4().hex[:8]}"
        self.port = free_port()
        published = ["-p", f"127.0.0.1:{self.port}:52100", "-v", f"{self.name}:/data"]
        self._words = ["docker", "run", "-d", "--name", self.name, *published, *words, image, *command]

    def start(self, path: str) -> float:
        """Seconds until it answers there."""
        began = time.monotonic()
        run(*self._words)
        wait_until(lambda: self._answers(path), timeout_s=120, what=f"{self.name} to answer {path}")
        return time.monotonic() - began

    def _answers(self, path: str) -> bool:
        try:
            with client(2) as asking:
                return asking.get(f"http://127.0.0.1:{self.port}{path}").is_success
        except HTTPError:
            return False

    def pss_mib(self) -> float:
        """Proportional memory of all its processes."""
        pids = run("docker", "top", self.name, "-eo", "pid").stdout.split()[1:]
        rollups = [Path("/proc", pid, "smaps_rollup").read_text() for pid in pids]
        return sum(int(re.findall(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[0]) for rollup in rollups) / 1024

    def commands_a_second(self, redis: str) -> float:
        """Return the commands a second that clients send to its Redis; calls inside a script do not count."""
        assert "PONG" in run("docker", "exec", self.name, "sh", "-c", f"redis-cli {redis} ping").stdout
        monitor = f"timeout {WATCH_S:.0f} redis-cli {redis} monitor"
        output = run("docker", "exec", self.name, "sh", "-c", monitor, check=False).stdout
        return sum(" lua]" not in line and "[" in line for line in output.splitlines()) / WATCH_S

    def end(self) -> None:
        run("docker", "rm", "-f", "-v", self.name, check=False)
        run("docker", "volume", "rm", "-f", self.name, check=False)


def _measured(container: Container, path: str, redis: Callable[[Container], str]) -> tuple[float, float, float]:
    """Seconds to ready, MiB, commands a second."""
    try:
        ready_s = container.start(path)
        time.sleep(SETTLE_S)
        return ready_s, container.pss_mib(), container.commands_a_second(redis(container))
    finally:
        container.end()


def _own_redis(container: Container) -> str:
    made = run("docker", "exec", container.name, "cat", "/data/.env").stdout
    parts = urlsplit(re.findall(r"^MILLRACE_REDIS_URL=(.*)$", made, re.MULTILINE)[0])
    return f"-p {parts.port} -a {parts.password} --no-auth-warning"


def rows(image: str = IMAGE) -> list[Row]:
    why = missing() or (None if has_image(image) else f"there is no image {image}: make image")
    if why:
        raise SystemExit(why)
    ready_s, memory, commands = _measured(Container(image), "/readyz", _own_redis)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("stock.py", "hello.py"):
            shutil.copy(REPOSITORY / "tests" / "bench" / file, folder)
        (folder / "stock.conf").write_text(STOCK)
        folder.chmod(0o755)
        words = ("-v", f"{folder}:/stock:ro", "-w", "/stock", "-e", "PYTHONPATH=/stock", "--entrypoint", "supervisord")
        other = Container(image, *words, command=("-c", "/stock/stock.conf"))
        stock = _measured(other, "/", lambda _: "")
    each = commands / len(QUEUES) / TALKERS
    return [
        Row(
            "17",
            "one container, idle: ready, memory (PSS), Redis commands a second",
            f"{ready_s:.1f} s, {memory:.0f} MiB, {commands:.1f}/s ({each:.1f} a queue and process)",
            f"stock container {stock[0]:.1f} s, {stock[1]:.0f} MiB, {stock[2]:.1f}/s for one queue",
            f"≤ {MAX_MEMORY_MIB} MiB, ≤ {MAX_COMMANDS_PER_S:g}/s a queue and process",
            memory <= MAX_MEMORY_MIB and each <= MAX_COMMANDS_PER_S,
        )
    ]


if __name__ == "__main__":
    print(markdown(rows(*sys.argv[1:2])))
