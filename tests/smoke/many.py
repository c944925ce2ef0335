"""The compose layout: a container a role, scaled, hurt and taken down."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import uuid4

from tests.smoke.engine import OWN, STANDIN, Inside, compose_words, has_image, run
from tests.support.processes import free_port
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until

STARTS_WITHIN_S = 300
# Longer than a busy machine takes to look whether they run.
LONG_S = 20


class Many(Inside):
    """The project of compose.yaml under a name of its own; `end()` removes containers, networks and volumes."""

    def __init__(self, image: str) -> None:
        super().__init__(free_port())
        self.project = f"smoke{uuid4().hex[:8]}"
        self.env = {"MILLRACE_IMAGE": image, "MILLRACE_PORT": str(self.port), "SMOKE_OWN": str(OWN)}
        self.env |= {"MILLRACE_GRACE_S": "5"}
        if has_image(STANDIN):
            self.env |= {"POSTGRES_IMAGE": STANDIN, "REDIS_IMAGE": STANDIN}
        self.words = compose_words()
        # With the registry's own images the profile is as good as its settings; here it is run where it can be.
        self.has_qdrant = has_image(f"{STANDIN}-qdrant")
        if self.has_qdrant:
            self.env |= {"QDRANT_IMAGE": f"{STANDIN}-qdrant", "MILLRACE_SEARCH_ENGINE": "qdrant"}
            self.words = [*self.words, "--profile", "qdrant"]

    def compose(self, *words: str) -> str:
        files = ["-f", str(REPOSITORY / "deploy" / "compose.yaml"), "-f", str(REPOSITORY / "tests/smoke/compose.yaml")]
        return run(*self.words, "-p", self.project, *files, *words, env=self.env).stdout

    def scale(self, workers: int) -> None:
        self.compose("up", "-d", "--no-build", "--scale", f"worker={workers}")

    def exec(self, *words: str) -> str:
        return self.compose("exec", "-T", "api", *words)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).split()

    def workers_alive(self) -> int:
        code = (
            "from app.core.db import database; from app.jobs.ledger import workers; "
            "print(len(database().read(workers.list_alive)))"
        )
        return int(self.exec("python", "-c", code))

    def end(self) -> None:
        self.compose("down", "-v", "--timeout", "1")


def check(image: str, say: Callable[[str], None]) -> None:
    """All promises of this layout. Raises AssertionError."""
    run(str(REPOSITORY / "deploy" / "secrets.sh"))
    system = Many(image)
    try:
        began = time.monotonic()
        system.scale(1)
        system.wait_ready()
        say(f"cold start to ready {time.monotonic() - began:.1f} s")
        _main_job(system)
        say(f"main job done, found by search in {'Qdrant' if system.has_qdrant else 'the api itself'}")
        system.upload("numbat")
        say("a file uploaded to the api is read by a worker")
        _hurt(system)
        say("three workers, one killed, api and Redis replaced: nothing lost, nothing doubled")
        _scaled_down(system)
        say("back to one worker without an attempt burnt, no stale registration")
        began = time.monotonic()
        system.compose("stop")
        say(f"all stopped in {time.monotonic() - began:.1f} s")
        _clean_exits(system)
    except AssertionError:
        print(system.compose("logs", "--tail", "15"))
        raise
    finally:
        system.end()


def _main_job(system: Many) -> None:
    page = "# Refunds\\n\\nMoney is back within five days, by wombat."
    system.exec("sh", "-c", f"printf '{page}' > /tmp/page.md && millrace index /tmp/page.md --wait --json")
    wait_until(lambda: system.search_finds("wombat"), timeout_s=60, what="the page to be found")


def _hurt(system: Many) -> None:
    system.scale(3)
    wait_until(lambda: system.workers_alive() == 3, timeout_s=STARTS_WITHIN_S, what="three workers")
    jobs = system.enqueue(LONG_S, 90)
    system.wait_state(jobs[0], "running")
    run("docker", "kill", "-s", "KILL", system.containers("worker")[0])
    run("docker", "kill", "-s", "KILL", *system.containers("redis"), *system.containers("qdrant"))
    system.compose("rm", "-f", "redis")
    system.scale(3)
    run("docker", "restart", "-t", "10", *system.containers("api"))
    system.wait_ready()
    rows = system.wait_all(jobs, timeout_s=240)
    assert {(row[1], row[4].count("succeeded")) for row in rows} == {("succeeded", 1)}, rows
    system.exec("millrace", "index", "verify")
    wait_until(lambda: system.search_finds("wombat"), timeout_s=60, what="the page to be found again")


def _scaled_down(system: Many) -> None:
    jobs = system.enqueue(LONG_S, 40)
    system.wait_state(jobs[0], "running")
    system.scale(1)
    rows = system.wait_all(jobs, timeout_s=240)
    assert {(row[1], row[2], row[3]) for row in rows} == {("succeeded", 0, 0)}, rows
    wait_until(lambda: system.workers_alive() == 1, timeout_s=60, what="one worker")


def _clean_exits(system: Many) -> None:
    ids = run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={system.project}").stdout.split()
    for container in ids:
        name, code = run("docker", "inspect", "-f", "{{.Name}} {{.State.ExitCode}}", container).stdout.split()
        assert code == "0", f"{name} ended with {code}"
