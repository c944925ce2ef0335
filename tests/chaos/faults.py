"""Faults, each a function with a weight; it returns once the fault itself is over."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.system import System

# Longer than a worker may be silent before it counts as dead (3 s here).
FROZEN_S = 4.5

Strike = Callable[[System, random.Random], None]


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    weight: int
    strike: Strike
    dialects: tuple[str, ...] = ("sqlite", "postgresql")


def kill_worker(system: System, rng: random.Random) -> None:
    worker = system.pick_worker(rng)
    if worker is not None:
        worker.kill()


def kill_all_workers(system: System, rng: random.Random) -> None:
    for worker in system.stack.workers:
        if worker.alive and worker.name not in system.asked_to_end:
            worker.wake()
            worker.kill()


def kill_child(system: System, rng: random.Random) -> None:
    """The process that runs the jobs; its master sees it and ends."""
    worker = system.pick_worker(rng)
    pid = system.child_of(worker) if worker is not None else None
    if pid is not None:
        _kill(pid)


def kill_master(system: System, rng: random.Random) -> None:
    """Dramatiq's master alone; the child must not live on."""
    worker = system.pick_worker(rng)
    if worker is not None:
        _kill(worker.pid)


def freeze_worker(system: System, rng: random.Random) -> None:
    """Suspend a worker until it counts as dead, then resume it: it must find that it has lost its jobs."""
    worker = system.pick_worker(rng)
    if worker is not None:
        system.freeze(worker, FROZEN_S)


def freeze_worker_briefly(system: System, rng: random.Random) -> None:
    worker = system.pick_worker(rng)
    if worker is not None:
        system.freeze(worker, rng.uniform(0.5, 2))


def drain_worker(system: System, rng: random.Random) -> None:
    worker = system.pick_worker(rng)
    if worker is not None:
        system.ask_to_end(worker, group=rng.random() < 0.3)


def terminate_twice(system: System, rng: random.Random) -> None:
    """An impatient supervisor, to the process or to its group."""
    worker = system.pick_worker(rng)
    if worker is None:
        return
    group = rng.random() < 0.5
    for _ in range(rng.choice((2, 2, 3, 10))):
        system.ask_to_end(worker, group=group)
        time.sleep(rng.uniform(0.0, 0.4))


def kill_relay(system: System, rng: random.Random) -> None:
    rng.choice(system.stack.relays).kill()


def kill_relays(system: System, rng: random.Random) -> None:
    for relay in system.stack.relays:
        relay.kill()


def kill_api(system: System, rng: random.Random) -> None:
    if system.stack.api is not None:
        system.stack.api.kill()


def flush_redis(system: System, rng: random.Random) -> None:
    system.redis.flush()


def restart_redis(system: System, rng: random.Random) -> None:
    """kill -9; its append-only file brings back all but the last second."""
    system.redis.kill()
    system.redis.start()


def empty_redis(system: System, rng: random.Random) -> None:
    system.empty_redis()


def redis_outage(system: System, rng: random.Random) -> None:
    _outage(system, rng.uniform(1.5, 4))


def long_redis_outage(system: System, rng: random.Random) -> None:
    _outage(system, 60)


def _outage(system: System, seconds: float) -> None:
    system.redis.kill()
    system.supervise(seconds)
    system.redis.start()


def freeze_redis(system: System, rng: random.Random) -> None:
    """Connected, but silent: worse than gone."""
    system.redis.process.freeze()
    system.supervise(rng.uniform(0.5, 4))
    system.redis.process.wake()


def restart_postgres(system: System, rng: random.Random) -> None:
    system.restart_postgres()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


LONG_OUTAGE = Fault("Redis gone for 60 s", 0, long_redis_outage)

FAULTS = (
    Fault("worker: kill -9 of its group", 14, kill_worker),
    Fault("worker: kill -9 of the child", 12, kill_child),
    Fault("worker: kill -9 of the master", 8, kill_master),
    Fault("worker: all killed at once", 3, kill_all_workers),
    Fault(f"worker: frozen for {FROZEN_S:g} s", 7, freeze_worker),
    Fault("worker: frozen briefly", 3, freeze_worker_briefly),
    Fault("worker: SIGTERM", 4, drain_worker),
    Fault("worker: SIGTERM twice or more", 7, terminate_twice),
    Fault("relay: kill -9 of one", 7, kill_relay),
    Fault("relay: kill -9 of both", 4, kill_relays),
    Fault("api: kill -9", 3, kill_api),
    Fault("Redis: FLUSHALL", 8, flush_redis),
    Fault("Redis: kill -9, back from its file", 6, restart_redis),
    Fault("Redis: kill -9, back empty", 6, empty_redis),
    Fault("Redis: gone for 1.5 to 4 s", 4, redis_outage),
    Fault("Redis: frozen for 0.5 to 4 s", 4, freeze_redis),
    Fault("PostgreSQL: immediate restart", 8, restart_postgres, ("postgresql",)),
)
