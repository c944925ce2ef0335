"""The same chaos for plain Dramatiq on the same Redis: the losses that the ledger prevents, in figures."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from app.core.ids import uuid7
from tests.chaos import faults
from tests.chaos.system import System, adopt_orphans
from tests.support.processes import Process
from tests.support.services import RedisServer
from tests.support.stack import REPOSITORY, Stack

MAX_QUIET_S = 60.0
RATE = 20.0


class StockSystem(System):
    """Workers and a Redis: there is nothing else to hurt."""

    def start(self) -> None:
        adopt_orphans()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.redis = RedisServer(self.folder / "redis", appendonly=True)
        self.postgres = None
        self.redis.start()
        env = {"STOCK_REDIS_URL": self.redis.url, "STOCK_DATABASE": str(self.folder / "effects.db")}
        os.environ.update(env)
        self.stack = Stack(self.folder / "logs", dict(os.environ), "")
        command = [str(Path(sys.executable).with_name("dramatiq")), "tests.chaos.stock_actors", "-p", "1", "-t", "6"]
        for number in range(1, self.workers + 1):
            log = self.stack.folder / f"worker-{number}.log"
            worker = Process(f"worker-{number}", command, log=log, env=dict(os.environ), cwd=REPOSITORY)
            worker.start()
            self.stack.workers.append(worker)
            self.stack.processes.append(worker)

    def _serves(self, process: Process) -> bool:
        return process.alive


@dataclass
class StockLoad:
    """Sends, and keeps what was accepted: a send that raised is not."""

    seed: int
    actors: Any
    accepted: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        rng = random.Random(self.seed)
        while not self.stopping.wait(rng.expovariate(RATE)):
            job_id, dice, effects = uuid7(), rng.random(), rng.randint(2, 5)
            try:
                if dice < 0.3:
                    effects = 1
                    self.actors.steps.send(job_id, 1, 0.0)
                elif dice < 0.88:
                    self.actors.steps.send(job_id, effects, rng.uniform(0.02, 0.15))
                else:
                    self.actors.flaky.send(job_id, effects)
            except redis.RedisError:
                self.refused += 1
                continue
            self.accepted[job_id] = effects


def run(rounds: int, seed: int) -> str:
    """The table of `rounds` faults on plain Dramatiq."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-stock-"))
    rng, system, counted = random.Random(seed), StockSystem(folder, "sqlite"), Counter[str]()
    chosen = [fault for fault in faults.FAULTS if fault.name.startswith(("worker", "Redis"))]
    try:
        system.start()
        # Its broker is made when it is imported, and needs the address of this run's Redis.
        actors: Any = __import__("tests.chaos.stock_actors", fromlist=["broker"])
        with closing(actors.connect()) as connection:
            connection.executescript(actors.SCHEMA)
        load = StockLoad(seed, actors)
        sender = threading.Thread(target=load.run, daemon=True)
        sender.start()
        began = time.monotonic()
        for _ in range(rounds):
            fault = rng.choices(chosen, [fault.weight for fault in chosen])[0]
            counted[fault.name] += 1
            fault.strike(system, rng)
            system.supervise(rng.uniform(0.3, 1.5))
        load.stopping.set()
        sender.join(30)
        return _table(system, load, actors, counted, time.monotonic() - began)
    finally:
        system.end()
        shutil.rmtree(folder, ignore_errors=True)


def _table(system: StockSystem, load: StockLoad, actors: Any, counted: Counter[str], seconds: float) -> str:
    while system.something_put_off:
        system.supervise(0.2)
    deadline = time.monotonic() + MAX_QUIET_S
    done: Counter[str] = Counter()
    while time.monotonic() < deadline and len(done) < len(load.accepted):
        system.supervise(1)
        with closing(actors.connect()) as connection:
            done = Counter(dict(connection.execute("SELECT job_id, count(*) FROM done GROUP BY job_id").fetchall()))
    with closing(actors.connect()) as connection:
        effects = Counter(dict(connection.execute("SELECT job_id, count(*) FROM effect GROUP BY job_id").fetchall()))
    missing = [job_id for job_id in load.accepted if not done[job_id]]
    stored_bodies = "".join(_bodies(system))
    stranded = [job_id for job_id in missing if job_id in stored_bodies]
    doubled = [job_id for job_id, expected in load.accepted.items() if effects[job_id] > expected]
    rows = [
        "## Plain Dramatiq, the same faults on workers and Redis",
        "",
        "| rounds | minutes | accepted | refused (Redis away) | lost for good | stranded for now | finished twice "
        "| effects doubled |",
        "|---|---|---|---|---|---|---|---|",
        f"| {counted.total()} | {seconds / 60:.1f} | {len(load.accepted)} | {load.refused} "
        f"| {len(missing) - len(stranded)} | {len(stranded)} | {sum(1 for count in done.values() if count > 1)} "
        f"| {len(doubled)} |",
        "",
        f"Looked at {MAX_QUIET_S:g} s after the last fault; stranded are messages that Redis still holds for "
        "workers long dead.",
        "",
        "Faults: " + ", ".join(f"{name} {count}" for name, count in sorted(counted.items())) + ".",
    ]
    return "\n".join(rows) + "\n"


def _bodies(system: StockSystem) -> list[str]:
    bodies: list[str] = []
    with system.redis.client() as client:
        for key in client.scan_iter("dramatiq:*.msgs"):
            bodies += [str(body) for body in client.hvals(str(key))]
    return bodies
