"""Dead workers: found by their process or their heartbeat, marked in the ledger, their jobs freed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from app.core import clock, logging, metrics, redis
from app.core.db import database
from app.core.settings import get_settings
from app.jobs.admission import admit
from app.jobs.events import publish
from app.jobs.ledger import ends, worker_host, workers
from app.jobs.ledger.ends import FREE_BATCH
from app.jobs.ledger.workers import Worker
from app.jobs.lua import LUA
from app.jobs.queues import QUEUES
from app.jobs.transition import Moved

CHECK_S = 1.0
ORPHAN_CHECK_S = 5.0
KEEP_WORKERS = timedelta(days=7)
MAX_SWEPT_WORKERS = 100

log = logging.get_logger(__name__)


@dataclass(slots=True)
class _Heartbeat:
    """A worker's heartbeat, and since when, on this relay's monotonic clock, it has not changed."""

    beat: int
    since: float


@dataclass
class DeadWorkers:
    """Watches all workers for one relay. `attempt` runs a step so that its failure does not stop the others."""

    attempt: Callable[[Callable[[], Any]], Any]
    _heartbeats: dict[str, _Heartbeat] = field(default_factory=dict)
    _checked_at: float = 0.0
    _orphans_at: float = 0.0

    def forget(self) -> None:
        """Restart all timeouts: the heartbeats could not be read, which does not mean that they stopped."""
        self._heartbeats.clear()
        metrics.WORKERS.forget()
        metrics.JOBS_WAITING.clear()
        metrics.OLDEST_WAITING_SECONDS.clear()

    def check(self) -> dict[str, int]:
        """Mark workers dead whose process exited or whose heartbeat stopped; return the threads serving each queue."""
        living = database().read(workers.list_alive)
        metrics.WORKERS.set(len(living))
        now, timeout_s = clock.monotonic(), get_settings().worker_dead_s
        # If this relay was suspended, perhaps with its machine, its observations are stale: restart the timeouts.
        fresh = now - self._checked_at < max(2 * CHECK_S, timeout_s / 3)
        before, self._heartbeats, self._checked_at = self._heartbeats if fresh else {}, {}, now
        for worker in living:
            heartbeat = before.get(worker.id)
            if heartbeat is None or heartbeat.beat != worker.beat:
                heartbeat = _Heartbeat(worker.beat, now)
            self._heartbeats[worker.id] = heartbeat
            if worker_host.has_exited(worker.host, worker.pid, worker.pid_birth):
                self.attempt(partial(self._mark_dead, worker, f"process {worker.pid} ended", None))
            elif now - heartbeat.since > timeout_s:
                self.attempt(partial(self._mark_dead, worker, f"no beat for {timeout_s:g} s", worker.beat))
        if now - self._orphans_at > ORPHAN_CHECK_S:
            self._orphans_at = now
            self._free_orphans()
        return {queue: sum(worker.threads for worker in living if queue in worker.queues) for queue in QUEUES}

    def _free_orphans(self) -> None:
        for worker_id in database().read(workers.list_orphans):
            self._free(worker_id, "its worker is gone", database().transaction(ends.free, worker_id, "worker gone"))
        _measure_queues()
        # Repeated here: Redis may have been away when they exited.
        _return_fetched(database().read(workers.list_exited, MAX_SWEPT_WORKERS))
        database().transaction(workers.prune, clock.now() - KEEP_WORKERS)

    def _mark_dead(self, worker: Worker, reason: str, seen_beat: int | None) -> None:
        moved = database().transaction(workers.mark_dead, worker.id, reason, seen_beat=seen_beat)
        if moved is None:
            return
        self._heartbeats.pop(worker.id, None)
        log.warning("worker_died", worker_id=worker.id, pid=worker.pid, reason=reason, jobs=len(moved))
        self._free(worker.id, reason, moved)
        _return_fetched([worker.id])

    def _free(self, worker_id: str, reason: str, moved: list[Moved]) -> None:
        """Announce the first batch of freed jobs and free the others."""
        while moved:
            metrics.FREED.inc(len(moved))
            publish.announce(moved, reason="interrupted")
            if len(moved) < FREE_BATCH:
                return
            moved = database().transaction(ends.free, worker_id, reason)


def _return_fetched(worker_ids: list[str]) -> None:
    """Put ids that these workers fetched and did not claim back to the head of the lists."""
    if worker_ids:
        redis.push().script(LUA / "sweep.lua", [redis.NAMESPACE, len(QUEUES), *QUEUES, *worker_ids])


def _measure_queues() -> None:
    for queue, count, oldest_s in database().read(admit.depths):
        metrics.JOBS_WAITING.labels(queue).set(count)
        metrics.OLDEST_WAITING_SECONDS.labels(queue).set(oldest_s)
