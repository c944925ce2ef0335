"""The scheduler process: one actor, `tick`, runs in it each minute. `periodiq actors.periodic`.

A tick is not a message: it does not pass Redis and cannot wait in a queue. A failed tick is only logged, since the next
one finds the remaining work. All starts are guarded in SQL, so that two schedulers do the same work once.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from typing import Any

import dramatiq
from periodiq import cron
from sqlalchemy.exc import SQLAlchemyError

from actors.lifespan import EXIT_CONFIG
from app.core import clock, logging
from app.core.db import database
from app.core.errors import AppError, ConfigError
from app.core.health import HealthServer
from app.core.process import hide_memory, leave
from app.core.settings import get_settings
from app.core.telemetry import setup as telemetry
from app.jobs import functions
from app.jobs.schedules import firing, store

# Modules whose definitions a schedule may name, next to those of MILLRACE_MODULES. No actor, no model: they load fast.
DEFINITIONS = (
    "app.documents.jobs", "app.documents.schedules", "app.jobs.children.pipeline", "app.retention.jobs",
    "app.search.jobs", "app.search.schedules", "app.sources.changes.jobs", "app.sources.crawls.jobs",
    "app.sources.jobs", "app.sources.schedules",
)  # fmt: skip
WAITING_S = 1.0

log = logging.get_logger(__name__)


class TickBroker(dramatiq.Broker):
    """Runs what periodiq sends in the scheduler itself."""

    def __init__(self) -> None:
        super().__init__(middleware=[])
        self.actor_options.add("periodic")
        self.last_tick = clock.monotonic()
        self.problem = ""
        self.has_declared = False

    def declare_queue(self, queue_name: str) -> None:
        """Ignore the queue: the scheduler has none."""

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        self.last_tick = clock.monotonic()
        try:
            self.get_actor(message.actor_name)()
            self.problem = ""
        except (AppError, SQLAlchemyError) as error:
            self.problem = str(error).splitlines()[0]
            log.warning("tick_failed", reason=self.problem)
        return message

    def health(self) -> dict[str, Any]:
        """Return the answer of /health."""
        silent_s = clock.monotonic() - self.last_tick
        status = self.problem or ("healthy" if silent_s < 150 else f"no tick for {silent_s:.0f} s")
        return {"status": status, "role": "scheduler", "last_tick_s": round(silent_s, 1)}


def start_due() -> None:
    """Start all due schedules, in as many transactions as necessary."""
    now = clock.now()
    while database().transaction(firing.replan, now) == firing.BATCH:
        log.info("clock_was_ahead", replanned=firing.BATCH)
    while True:
        fired = database().transaction(firing.fire, now)
        if fired.ticks:
            log.info("ticked", schedules=fired.schedules, **fired.ticks)
        if fired.schedules < firing.BATCH:
            return


def start_waiting() -> None:
    """Start ticks that waited for an earlier job of their schedule, if that has ended."""
    if database().read(firing.waiting):
        database().transaction(firing.start_waiting)


def _watch() -> None:
    """Start waiting ticks each second, so that they do not wait a minute for the next tick."""
    pause = threading.Event()
    while not pause.wait(WAITING_S):
        try:
            start_waiting()
        except (AppError, SQLAlchemyError) as error:
            log.warning("waiting_ticks_wait_on", reason=str(error).splitlines()[0])


def _start() -> TickBroker:
    settings = get_settings()
    if settings.role not in ("", "scheduler"):
        raise ConfigError(f"MILLRACE_ROLE={settings.role}: this process may not be the scheduler")
    hide_memory()
    logging.setup("scheduler")
    telemetry.start("scheduler")
    for module in DEFINITIONS:
        importlib.import_module(module)
    functions.import_modules(settings.modules)
    # A tick is one transaction, so it may be cut off.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave(0))
    broker = TickBroker()
    dramatiq.set_broker(broker)
    HealthServer(broker.health)
    threading.Thread(target=_watch, name="waiting-ticks", daemon=True).start()
    return broker


try:
    broker = _start()
except ConfigError as error:
    sys.stderr.write(f"millrace scheduler: {error.message}\n")
    sys.exit(EXIT_CONFIG)


@dramatiq.actor(periodic=cron("* * * * *"))
def tick() -> None:
    """Start due schedules once a minute; the first tick also stores the schedules that the program declares.

    Only the first: two schedulers of different versions would otherwise overwrite each other every minute.
    """
    if not broker.has_declared:
        database().transaction(store.declare)
        broker.has_declared = True
    start_due()
