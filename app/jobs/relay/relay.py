"""The relay: feeds Redis from SQL and frees the jobs of dead workers. Any number may run, without a leader.

Every move is guarded in SQL, so two relays that do the same work do it once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from app.core import clock, logging, metrics, redis
from app.core.db import close_database, database
from app.core.errors import ConfigError, Unavailable
from app.core.health import HealthServer
from app.core.process import leave_when_overdue
from app.core.settings import get_settings
from app.core.telemetry import setup as telemetry
from app.jobs import functions
from app.jobs.children import children
from app.jobs.events import publish
from app.jobs.ledger import child_moves, commands, timers
from app.jobs.relay.dead_workers import CHECK_S, DeadWorkers
from app.jobs.relay.windows import Windows

TICK_S = 0.5
BACKLOG_TICK_S = 0.05
BATCH = 1000
# After that a stopping relay ends in the middle of its round: every step of it is one transaction.
MAX_STOP_S = 10.0
# Further batches of children to cancel come in the next round.
MAX_CANCEL_BATCHES_PER_TICK = 20

log = logging.get_logger(__name__)


class Relay:
    """One relay. `run()` works until the event is set; `tick()` is one round."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self.state: dict[str, Any] = {"status": "starting", "role": "relay"}
        self._windows = Windows()
        self._dead_workers = DeadWorkers(self._attempt)
        self._problems: list[str] = []
        self._unreachable: set[str] = set()
        self._slow_at = 0.0

    def run(self) -> None:
        """Work until `stop`; a step that fails is tried again at the next tick."""
        blocking = redis.blocking(TICK_S)
        while not self.stop.is_set():
            backlog, problems = self.tick()
            status = "; ".join(problems) or "healthy"
            self.state = {"status": status, "role": "relay", "windows": self._windows.sizes()}
            try:
                blocking.blpop([redis.WAKE_RELAY], timeout=BACKLOG_TICK_S if backlog else TICK_S)
            except RedisError:
                self.stop.wait(TICK_S)

    def tick(self) -> tuple[bool, list[str]]:
        """Do one round; return True if jobs wait outside the windows, and the problems of this round."""
        windows = self._windows
        steps = [self._make_due, self._expire, self._settle_parents]
        if clock.monotonic() - self._slow_at >= CHECK_S:
            self._slow_at = clock.monotonic()
            steps += [self._check_workers, windows.read_run_id, windows.publish_sizes, windows.push_lost]
        problems = []
        self._unreachable.clear()
        for step in (*steps, windows.check_flush, windows.feed):
            problems += self._attempt(step)
        for service in ("sql", "redis"):
            metrics.SERVICE_UP.labels(service).set(service not in self._unreachable)
        if self._problems and not problems:
            logging.fault_over("relay_waits")
            log.info("relay_resumed")
        self._problems = list(dict.fromkeys(problems))
        return bool(windows.waiting), self._problems

    def _attempt(self, step: Callable[[], Any]) -> list[str]:
        """Run the step and return its problem, if any."""
        try:
            step()
        except (Unavailable, ConfigError) as error:
            is_sql = "database" in error.code
            self._unreachable.add("sql" if is_sql else "redis")
            if is_sql:
                self._dead_workers.forget()
            log.warning("relay_waits", reason=error.message)
            return [error.message]
        except Exception as error:  # the relay outlives every fault of one round
            log.exception("relay_step_failed")
            return [f"{type(error).__name__}: {error}"]
        return []

    def _make_due(self) -> None:
        if database().read(timers.has_due):
            moved = database().transaction(timers.make_due, BATCH)
            log.debug("made_due", jobs=moved)

    def _expire(self) -> None:
        if database().read(timers.has_expired):
            publish.announce(database().transaction(timers.expire, BATCH))

    def _settle_parents(self) -> None:
        """Cancel children whose parent has decided, and move parents whose children have ended."""
        settled, cut = database().read(children.has_work)
        for _ in range(MAX_CANCEL_BATCHES_PER_TICK if cut else 0):
            cancelled = database().transaction(child_moves.cancel_children)
            publish.announce(cancelled.moved)
            commands.notify_workers(cancelled.asked)
            if not cancelled.more:
                break
        if settled or cut:
            publish.announce(database().transaction(child_moves.settle))

    def _check_workers(self) -> None:
        self._windows.slots = self._dead_workers.check()


def main() -> None:
    """Be a relay process until SIGTERM or SIGINT; a second one changes nothing. Raises ConfigError."""
    logging.setup("relay")
    telemetry.start("relay")
    functions.import_modules(get_settings().modules)  # a job may end here, and its definition wants to hear of it
    relay = Relay()

    def stop(*_: object) -> None:
        if not relay.stop.is_set():
            leave_when_overdue(MAX_STOP_S)
            relay.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    health = HealthServer(lambda: relay.state)
    log.info("relay_started", health=health.url)
    relay.run()
    health.stop()
    close_database()
    log.info("relay_stopped")
