"""The relay: feeds Redis from SQL and frees the jobs of dead workers. Any number of them may run; none leads.

Every move is guarded in SQL, so two relays that do the same thing do it once.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from app.core import clock, logging, metrics, redis
from app.core.db import close_database, database
from app.core.errors import ConfigError, Unavailable
from app.core.health import HealthServer
from app.core.settings import get_settings
from app.jobs import functions, transition
from app.jobs.admission import admit, push
from app.jobs.admission.push import DEFAULT_WINDOW, LUA
from app.jobs.children import children
from app.jobs.events import publish
from app.jobs.ledger import admissions, child_moves, commands, ends, timers, worker_host, workers
from app.jobs.ledger.ends import FREE_BATCH
from app.jobs.ledger.workers import Worker
from app.jobs.queues import QUEUES
from app.jobs.relay import fairness

LARGEST_WINDOW = 5000
TICK_S = 0.5
BACKLOG_TICK_S = 0.05
SLOW_TICK_S = 1.0
# A push that nobody claimed within this is compared with what Redis holds.
UNCLAIMED = timedelta(seconds=5)
BATCH = 1000
SAY_AGAIN_S = 10.0
STRAY_TICK_S = 5.0
KEEP_WORKERS = timedelta(days=7)
SWEPT_AT_ONCE = 100
# Batches of children to cancel in one round; the others come in the next.
CUTS_A_TICK = 20

log = logging.get_logger(__name__)


@dataclass(slots=True)
class _Window:
    """How many ids a queue may hold in Redis: about what its workers take in half a second."""

    size: int = DEFAULT_WINDOW
    fed_at: float = 0.0

    def adapt(self, length: int, least: int, now: float) -> None:
        """Grow while it is emptied within half a second, shrink while it stays full for two."""
        if length <= self.size // 4 and now - self.fed_at < 0.5:
            self.size *= 2
        elif length > self.size // 2 and now - self.fed_at > 2:
            self.size //= 2
        self.size = max(least, min(self.size, LARGEST_WINDOW))


@dataclass(slots=True)
class _Seen:
    """A worker's beat and since when, on this relay's own monotonic clock, it has not changed."""

    beat: int
    since: float


@dataclass
class Relay:
    """One relay; `run()` until the event is set, or `tick()` by hand."""

    stop: threading.Event = field(default_factory=threading.Event)
    _positions: dict[str, fairness.Position] = field(
        default_factory=lambda: {queue: fairness.Position() for queue in QUEUES}
    )
    _windows: dict[str, _Window] = field(default_factory=lambda: {queue: _Window() for queue in QUEUES})
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _slots: dict[str, int] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    _backlog: set[str] = field(default_factory=set)
    _said: dict[str, float] = field(default_factory=dict)
    _missed: set[str] = field(default_factory=set)
    _run_id: str = ""
    _slow_at: float = 0.0
    _looked_at: float = 0.0
    _stray_at: float = 0.0
    state: dict[str, Any] = field(default_factory=lambda: {"status": "starting", "role": "relay"})

    def run(self) -> None:
        """Until `stop`; what fails is tried again at the next tick."""
        blocking = redis.blocking(TICK_S)
        while not self.stop.is_set():
            backlog, problems = self.tick()
            self.state = {"status": "; ".join(problems) or "healthy", "role": "relay", "windows": self._sizes()}
            try:
                blocking.blpop([redis.WAKE_RELAY], timeout=BACKLOG_TICK_S if backlog else TICK_S)
            except RedisError:
                self.stop.wait(TICK_S)

    def tick(self) -> tuple[bool, list[str]]:
        """One round; whether jobs wait outside the windows, and what could not be reached."""
        steps = [self._make_due, self._expire, self._look_after_families]
        if clock.monotonic() - self._slow_at >= SLOW_TICK_S:
            self._slow_at = clock.monotonic()
            steps += [self._bury_dead, self._check_epoch, self._tell_windows, self._repush_lost]
        problems = []
        self._missed.clear()
        for step in (*steps, self._check_flush, self._feed):
            problems += self._try(step)
        for service in ("sql", "redis"):
            metrics.SERVICE_UP.labels(service).set(service not in self._missed)
        return bool(self._waiting), list(dict.fromkeys(problems))

    def _try(self, step: Any) -> list[str]:
        try:
            step()
        except (Unavailable, ConfigError) as error:
            self._missed.add("sql" if "database" in error.code else "redis")
            if "database" in error.code:
                self._seen.clear()  # a beat that could not be read is no beat that stood still
            self._say(error.message)
            return [error.message]
        except Exception as error:  # the relay outlives every fault of one round
            log.exception("relay_step_failed")
            return [f"{type(error).__name__}: {error}"]
        return []

    def _say(self, reason: str) -> None:
        """Once a reason and ten seconds, however often it stands in the way."""
        now = clock.monotonic()
        if now - self._said.get(reason, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self._said = {known: at for known, at in self._said.items() if now - at < SAY_AGAIN_S} | {reason: now}
            log.warning("relay_waits", reason=reason)

    def _make_due(self) -> None:
        if database().read(timers.has_due):
            moved = database().transaction(timers.make_due, BATCH)
            log.debug("made_due", jobs=moved)

    def _expire(self) -> None:
        if database().read(timers.has_expired):
            publish.announce(database().transaction(timers.expire, BATCH))

    def _look_after_families(self) -> None:
        settled, cut = database().read(children.has_work)
        for _ in range(CUTS_A_TICK if cut else 0):
            found = database().transaction(child_moves.cancel_children)
            publish.announce(found.moved)
            commands.notify_workers(found.asked)
            if not found.more:
                break
        if settled or cut:
            publish.announce(database().transaction(child_moves.settle))

    # Windows

    def _feed(self) -> None:
        self._waiting = database().read(admit.waiting_queues, list(QUEUES))
        if self._backlog != set(self._waiting):
            self._backlog = set(self._waiting)
            self._tell_windows()
        for queue in database().read(fairness.contended):
            push.push(database().read(fairness.promotable, queue), place="move")
        if not self._waiting:
            return
        lengths = redis.push().call(self._lengths)
        for queue in list(self._waiting):
            length, early = lengths[queue]
            window, now, least = self._windows[queue], clock.monotonic(), self._least(queue)
            window.adapt(length, least, now)
            room = window.size - length if length <= window.size // 2 else 0
            position = self._positions[queue]
            refs = database().transaction(fairness.admit, queue, room, position, promoted_room=max(0, least - early))
            position.advance()
            if refs:
                window.fed_at = now if room else window.fed_at
                push.push([ref for ref in refs if ref.promoted], place="early")
                push.push([ref for ref in refs if not ref.promoted])
                metrics.ADMITTED.labels(queue).inc(len(refs))
            elif room:
                self._waiting.remove(queue)  # paused or capped: there is no hurry, who opens the gate wakes a relay

    def _least(self, queue: str) -> int:
        """The smallest window: what its workers hold twice, so that a share of it is soon served."""
        return min(2 * self._slots.get(queue, 0) or DEFAULT_WINDOW, LARGEST_WINDOW)

    def _lengths(self, client: Any) -> dict[str, tuple[int, int]]:
        """For each queue how many ids lie in its window, and how many of them came early."""
        with client.pipeline(transaction=False) as pipeline:
            for queue in QUEUES:
                pipeline.llen(f"{redis.NAMESPACE}:{queue}").llen(f"{redis.NAMESPACE}:{queue}.early")
            lengths = pipeline.execute()
        return {queue: (sum(lengths[2 * n : 2 * n + 2]), lengths[2 * n + 1]) for n, queue in enumerate(QUEUES)}

    def _tell_windows(self) -> None:
        """Tell those who enqueue how much room each queue has: next to none where others wait already."""
        told = {queue: 1 if queue in self._backlog else size for queue, size in self._sizes().items()}

        def tell(client: Any) -> None:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.hset(redis.WINDOW, mapping=told).expire(redis.WINDOW, 60).execute()

        redis.push().call(tell)

    def _sizes(self) -> dict[str, int]:
        return {queue: window.size for queue, window in self._windows.items()}

    def _check_epoch(self) -> None:
        """A Redis that was restarted has another run id; whether its data came back is not worth asking."""
        self._run_id = str(redis.push().call(lambda client: client.info("server"))["run_id"])

    def _check_flush(self) -> None:
        if not self._run_id:
            self._check_epoch()
        if redis.push().call(lambda client: client.getex(redis.EPOCH, ex=86400)) == self._run_id:
            return
        # Two relays that spoke of an old life and a new one would empty the windows in turns.
        self._check_epoch()
        if redis.push().script(LUA / "epoch.lua", [redis.EPOCH, self._run_id]):
            emptied = database().transaction(admissions.withdraw)
            log.info("redis_is_new", readmitting=emptied)

    def _repush_lost(self) -> None:
        living: list[str] = []
        lost = []
        for queue in QUEUES:  # each for itself: a queue that nobody serves must not hide what others have lost
            refs = database().read(admit.unclaimed, queue, UNCLAIMED, BATCH)
            if not refs:
                continue
            living = living or [worker.id for worker in database().read(workers.list_alive)]
            ours = {push.redis_id(ref.id, ref.fence): ref for ref in refs}
            args = [redis.NAMESPACE, queue, len(living), *living, *ours]
            lost += [ours[redis_id] for redis_id in redis.push().script(LUA / "missing.lua", args)]
        if lost:
            log.info("pushed_again", jobs=len(lost))
            metrics.REPUSHED.inc(len(lost))
            push.push(lost, place="head")

    # Workers

    def _bury_dead(self) -> None:
        living = database().read(workers.list_alive)
        self._slots = {queue: sum(worker.threads for worker in living if queue in worker.queues) for queue in QUEUES}
        metrics.WORKERS.set(len(living))
        now, patience_s = clock.monotonic(), get_settings().worker_dead_s
        # A relay that stood still itself, perhaps with its whole machine, has watched nobody meanwhile.
        watched = now - self._looked_at < max(2 * SLOW_TICK_S, patience_s / 3)
        seen, self._seen, self._looked_at = self._seen if watched else {}, {}, now
        for worker in living:
            known = seen.get(worker.id)
            if known is None or known.beat != worker.beat:
                known = _Seen(worker.beat, now)
            self._seen[worker.id] = known
            if worker_host.has_exited(worker.host, worker.pid, worker.pid_birth):
                self._try(partial(self._bury, worker, f"process {worker.pid} ended", None))
            elif now - known.since > patience_s:
                self._try(partial(self._bury, worker, f"no beat for {patience_s:g} s", worker.beat))
        if now - self._stray_at > STRAY_TICK_S:
            self._stray_at = now
            for worker_id in database().read(workers.list_orphans):
                self._free(worker_id, "its worker is gone", database().transaction(ends.free, worker_id, "worker gone"))
            self._measure()
            self._sweep(database().read(workers.list_exited, SWEPT_AT_ONCE))  # Redis may have been away when they went
            database().transaction(workers.prune, clock.now() - KEEP_WORKERS)

    def _bury(self, worker: Worker, reason: str, seen_beat: int | None) -> None:
        moved = database().transaction(workers.mark_dead, worker.id, reason, seen_beat=seen_beat)
        if moved is None:
            return
        self._seen.pop(worker.id, None)
        log.warning("worker_died", worker_id=worker.id, pid=worker.pid, reason=reason, jobs=len(moved))
        self._free(worker.id, reason, moved)
        # What it had fetched and not claimed goes back to the head of the lists.
        self._sweep([worker.id])

    def _sweep(self, worker_ids: list[str]) -> None:
        if worker_ids:
            redis.push().script(LUA / "sweep.lua", [redis.NAMESPACE, len(QUEUES), *QUEUES, *worker_ids])

    def _free(self, worker_id: str, reason: str, moved: list[transition.Moved]) -> None:
        """Tell of the first batch and free the others."""
        while moved:
            metrics.FREED.inc(len(moved))
            publish.announce(moved, reason="interrupted")
            if len(moved) < FREE_BATCH:
                return
            moved = database().transaction(ends.free, worker_id, reason)

    def _measure(self) -> None:
        for queue, count, oldest in database().read(admit.depths):
            metrics.JOBS_WAITING.labels(queue).set(count)
            metrics.OLDEST_WAITING_SECONDS.labels(queue).set(oldest)


def main() -> None:
    """Be a relay process until SIGTERM or SIGINT; a second one changes nothing. Raises ConfigError."""
    logging.setup("relay")
    functions.import_modules(get_settings().modules)  # a job may end here, and its definition wants to hear of it
    relay = Relay()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stop.set())
    health = HealthServer(lambda: relay.state)
    log.info("relay_started", health=health.url)
    relay.run()
    health.stop()
    close_database()
    log.info("relay_stopped")
