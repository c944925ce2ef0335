"""The single container: hardened, killed, started again, stopped, and one that cannot start."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from tests.smoke.engine import OWN, START_S, Inside, run
from tests.support import ten_lines
from tests.support.processes import free_port
from tests.support.waiting import wait_until

GRACE_S = 5


class Single(Inside):
    """A container on a volume of its own; `end()` removes both."""

    def __init__(self, image: str, *, own: Path = OWN, modules: str = "smoke_kinds") -> None:
        super().__init__(free_port())
        self.image = image
        self.own, self.modules = own, modules
        self.name = f"millrace-smoke-{uuid4().hex[:8]}"

    def start(self) -> None:
        words = ["docker", "run", "-d", "--name", self.name, "--stop-timeout", "60"]
        words += ["--read-only", "--tmpfs", "/tmp", "--user", "10001", "--cap-drop", "ALL"]
        words += ["--security-opt", "no-new-privileges", "-p", f"127.0.0.1:{self.port}:52100"]
        words += ["-v", f"{self.name}:/data", "-v", f"{self.own}:/own:ro", "-e", "PYTHONPATH=/own"]
        words += ["-e", f"MILLRACE_MODULES={self.modules}", "-e", f"MILLRACE_GRACE_S={GRACE_S}", self.image]
        run(*words)

    def exec(self, *words: str) -> str:
        return run("docker", "exec", self.name, *words).stdout

    def stop(self) -> tuple[int, float]:
        """Exit code, and how long it took."""
        began = time.monotonic()
        run("docker", "stop", self.name)
        return self.exit_code(), time.monotonic() - began

    def exit_code(self) -> int:
        return int(run("docker", "inspect", "-f", "{{.State.ExitCode}}", self.name).stdout)

    def running(self) -> bool:
        return run("docker", "inspect", "-f", "{{.State.Running}}", self.name).stdout.strip() == "true"

    def logs(self) -> list[str]:
        ended = run("docker", "logs", self.name)
        return (ended.stdout + ended.stderr).splitlines()

    def end(self) -> None:
        run("docker", "rm", "-f", "-v", self.name, check=False)
        run("docker", "volume", "rm", "-f", self.name, check=False)


def check(image: str, say: Callable[[str], None]) -> None:
    """All promises of this layout. Raises AssertionError."""
    box = Single(image)
    try:
        began = time.monotonic()
        box.start()
        box.wait_ready()
        say(f"cold start to ready {time.monotonic() - began:.1f} s")
        wait_until(_healthy(box), timeout_s=60, what="the container's own health check")
        _main_job(box)
        say("main job done, found by search")
        box.upload("numbat")
        say("a file uploaded to the api is read by a worker")
        _killed(box)
        say("killed with jobs under way, started again: nothing lost")
        _one_side(box)
        say("worker killed and api restarted by themselves: nothing lost, nothing doubled")
        _drained(box, say)
    except AssertionError:
        print("\n".join(box.logs()[-40:]))
        raise
    finally:
        box.end()
    _cannot_start(image)
    say("a program that cannot start ends the container, its reason last")
    _own_kind(image)
    say("the README's kind of one's own runs in the image, and so does its test")


def _healthy(box: Single) -> Callable[[], bool]:
    words = ("docker", "inspect", "-f", "{{.State.Health.Status}}", box.name)
    return lambda: run(*words).stdout.strip() == "healthy"


def _main_job(box: Inside) -> None:
    page = "# Refunds\\n\\nMoney is back within five days, by wombat."
    box.exec("sh", "-c", f"printf '{page}' > /tmp/page.md && millrace index /tmp/page.md --wait --json")
    assert box.search_finds("wombat")


def _killed(box: Single) -> None:
    jobs = box.enqueue(4, 6)
    box.wait_state(jobs[0], "running")
    run("docker", "kill", "-s", "KILL", box.name)
    run("docker", "start", box.name)
    box.wait_ready()
    rows = box.wait_all(jobs)
    assert {(row[1], row[4].count("succeeded")) for row in rows} == {("succeeded", 1)}, rows
    assert box.search_finds("wombat")


def _one_side(box: Single) -> None:
    jobs = box.enqueue(6, 4)
    box.wait_state(jobs[0], "running")
    pid = box.exec("supervisorctl", "pid", "worker:worker_00").strip()
    box.exec("python", "-c", f"import os; os.kill({pid}, 9)")
    box.exec("supervisorctl", "restart", "api")
    box.wait_ready()
    rows = box.wait_all(jobs)
    assert {(row[1], row[4].count("succeeded")) for row in rows} == {("succeeded", 1)}, rows
    workers = json.loads(box.exec("millrace", "doctor", "--json"))
    assert [line["state"] for line in workers if line["check"] == "workers"] == ["ok"]


def _drained(box: Single, say: Callable[[str], None]) -> None:
    """A stop in the middle of long jobs burns no attempt."""
    jobs = box.enqueue(30, 3)
    box.wait_state(jobs[0], "running")
    code, took_s = box.stop()
    assert code == 0, box.logs()[-5:]
    run("docker", "start", box.name)
    box.wait_ready()
    rows = [row for row in box.rows() if row[0] in jobs]
    assert {(tries, crashes) for _, _, tries, crashes, _ in rows} == {(0, 0)}, rows
    say(f"stopped with jobs under way in {took_s:.1f} s ({GRACE_S} s grace), no attempt burnt")
    code, took_s = box.stop()
    assert code == 0
    strange = [line for line in box.logs() if not line.startswith("{") and "Periodiq" not in line]
    assert strange == [], strange


def _own_kind(image: str) -> None:
    """What the README shows, in a folder that the container has as PYTHONPATH."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ten_lines.write(folder)
        folder.chmod(0o755)
        box = Single(image, own=folder, modules="shop.jobs")
        try:
            box.start()
            box.wait_ready()
            box.exec("python", "-c", "import shop.test_jobs as tests; tests.test_a_receipt_is_sent()")
            assert "order_id: integer" in box.exec("millrace", "kinds")
            said = box.exec("millrace", "jobs", "start", "shop.receipt", '{"order_id": 7}', "--wait")
            assert "receipt of order 7" in said
        finally:
            box.end()


def _cannot_start(image: str) -> None:
    box = Single(image)
    try:
        words = ("docker", "run", "-d", "--name", box.name, "-e", "MILLRACE_MODULES=nosuchmodule", image)
        run(*words)
        wait_until(lambda: not box.running(), timeout_s=START_S, what="the container to end")
        assert box.exit_code() == 1
        assert "MILLRACE_MODULES" in json.loads(box.logs()[-1])["event"]
    finally:
        box.end()
